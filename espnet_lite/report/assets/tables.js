// Tables that sort by a press on a column's head.

/**
 * Return a table in a frame that scrolls sideways.
 *
 * columns: {label, value(row) → number, string or null, cell(row) → text or node (default: the
 * value), isText: to the left and sorted from A, isHead: names the row}.
 * options: caption (read aloud, shown with `showCaption`), sortBy: column, descending.
 */
function sortableTable(columns, rows, { caption, showCaption = false, sortBy = null, descending = false } = {}) {
  const body = h('tbody');
  const heads = columns.map((column, index) => {
    const button = h('button', { type: 'button', onclick: () => sort(index) }, column.label);
    return h('th', { scope: 'col', class: column.isText ? 'text' : null }, button);
  });
  let current = { index: sortBy, descending };

  function sort(index) {
    const isSame = current.index === index;
    // A first press gives what is looked for most: names from A, numbers from the lowest.
    current = { index, descending: isSame ? !current.descending : false };
    fill();
  }

  function fill() {
    const { index, descending: isDown } = current;
    heads.forEach((head, i) => {
      head.setAttribute('aria-sort', i !== index ? 'none' : isDown ? 'descending' : 'ascending');
    });
    const ordered = index === null ? rows : sorted(rows, columns[index].value, isDown);
    refill(body, ordered.map((row) => h('tr', { class: row.isMarked ? 'marked' : null },
      columns.map((column) => cellOf(column, row)))));
  }

  fill();
  const table = h('table', {}, h('caption', { class: showCaption ? null : 'unseen' }, caption),
    h('thead', {}, h('tr', {}, heads)), body);
  return h('div', { class: 'scroll' }, table); // the buttons in its head bring it into view by keyboard
}

function cellOf(column, row) {
  const content = column.cell ? column.cell(row) : column.value(row);
  const shown = content === null || content === undefined ? '–' : content;
  const attributes = { class: column.isText ? 'text' : null };
  return column.isHead
    ? h('th', { scope: 'row', ...attributes }, shown)
    : h('td', attributes, shown);
}

/** Return the rows by value; what has no value stays last in either direction, ties in order. */
function sorted(rows, value, isDown) {
  const sign = isDown ? -1 : 1;
  return rows
    .map((row) => [value(row), row])
    .sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b);
    })
    .map(([, row]) => row);
}
