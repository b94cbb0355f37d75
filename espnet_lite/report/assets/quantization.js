// Where a quantized encoder errs: maps of place × block, drawn as tables with shaded cells.

function quantizationSection(data) {
  return section('quantization', 'Quantization errors',
    h('p', { class: 'note' }, 'Change of a unit’s output in percent of its size: by its own quantization, by that of the units before it, and what the two make together beyond that. Columns are blocks; deeper shades are larger errors, on one scale for each encoder.'),
    data.quantization.map((analysis) => {
      const most = Math.max(...Object.values(analysis.parts).flatMap((places) => Object.values(places).flat()).map((value) => value ?? 0));
      return h('section', { 'aria-label': analysis.name }, h('h3', {}, breakable(analysis.name)),
        h('div', { class: 'figures' }, Object.entries(analysis.parts).map(([part, places]) => heatMap(part, places, analysis.blocks, most))));
    }));
}

/** Return a map: a row for each place, a column for each block; the numbers stand in the cells. */
function heatMap(title, places, blocks, most) {
  const numbers = Array.from({ length: blocks }, (_, block) => h('th', { scope: 'col' }, String(block + 1)));
  const rows = Object.entries(places).map(([place, values]) => h('tr', {}, h('th', { scope: 'row', class: 'text' }, place),
    values.map((value) => {
      if (value === null) return h('td', {}, '–');
      const cell = h('td', {}, fixed(100 * value, 0));
      cell.style.setProperty('--share', `${Math.round((60 * value) / (most || 1))}%`);
      return cell;
    })));
  return h('div', { class: 'scroll' }, h('table', { class: 'heat' }, h('caption', {}, title),
    h('thead', {}, h('tr', {}, h('td'), numbers)), h('tbody', {}, rows)));
}
