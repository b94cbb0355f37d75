// Making elements and texts. Text becomes a text node, never markup: nothing here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

/** Return a new HTML element; attributes `on…` are listeners, `false` and `null` ones are left out. */
function h(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

/** Return a new SVG element. */
function s(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined);
}

/** Give an element other children; what had the focus gives it to its successor of the same key. */
function refill(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  element.replaceChildren(...present(children));
  if (focused) [...element.querySelectorAll('[data-key]')].find((one) => one.dataset.key === focused)?.focus();
}

/** Return a section with a heading that the navigation can name. */
function section(id, title, ...children) {
  return h('section', { id, 'aria-labelledby': `${id}-title` },
    h('h2', { id: `${id}-title` }, title), ...children);
}

/** Return a `<select>` under its label; `options` are [value, text] pairs. */
function choice(label, options, value, onChange) {
  const select = h('select', { 'data-key': label, onchange: () => onChange(select.value) },
    options.map(([key, text]) => h('option', { value: key, selected: key === value }, text)));
  return h('label', { class: 'field' }, h('span', {}, label), select);
}

/** Return a name with places for line breaks behind its underscores and strokes. */
function breakable(name) {
  return name.split(/(?<=[_/])/).flatMap((part, i) => (i === 0 ? [part] : [document.createElement('wbr'), part]));
}

/** Return whether an object has a key of its own: `in` would find `constructor` too. */
function has(object, key) {
  return key !== null && Object.hasOwn(object, key);
}

const thousands = new Intl.NumberFormat('en');

/** Return a whole number with commas. */
function whole(value) {
  return value === null || value === undefined ? '–' : thousands.format(value);
}

/** Return `part` in percent of `of` with two decimals, halves up as sclite rounds; null without. */
function percent(part, of) {
  return of ? Math.floor((part / of) * 100 * 100 + 0.5) / 100 : null;
}

/** Return a number with so many decimals, a dash for null. */
function fixed(value, decimals = 2) {
  return value === null || value === undefined ? '–' : value.toFixed(decimals);
}

/** Return "1 word" or "2 words". */
function counted(number, noun) {
  return `${whole(number)} ${noun}${number === 1 ? '' : 's'}`;
}
