// Puts the page together from the data.

function drawReport() {
  const data = JSON.parse(document.getElementById('data').textContent);
  const main = document.getElementById('main');
  const utterances = Object.keys(data.utterances).length > 0
    ? utterancesSection(data)
    : { node: null, has: () => false, show: () => {} };
  const sections = [
    resultsSection(data, utterances),
    data.efficiency.length > 0 || data.rows.length > 1 ? costSection(data) : null,
    data.trainings.length + data.pretrainings.rows.length > 0 ? trainingSection(data) : null,
    data.quantization.length > 0 ? quantizationSection(data) : null,
    data.units.length > 0 ? unitsSection(data) : null,
    utterances.node,
  ].filter(Boolean);
  document.getElementById('masthead').append(...headline(data),
    h('nav', { 'aria-label': 'Sections' }, sections.map((part) => h('a', { href: `#${part.id}`, onclick: (event) => goTo(event, part) }, part.querySelector('h2').textContent))));
  refill(main, sections);
  document.getElementById('footer').append(h('p', {}, data.made));
}

/** Go to a section without a new address, which holds the state of the utterances. */
function goTo(event, part) {
  event.preventDefault();
  part.scrollIntoView();
  const heading = part.querySelector('h2');
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

drawReport();
