// Filters the tables of methods/README.md by words, needs and problems. Without scripts the tables are whole.
(function () {
  "use strict";

  var place = document.getElementById("catalogue");
  if (!place) return;

  var COLUMNS = { verified: 2, needs: 3, against: 4 };
  var rows = Array.prototype.slice.call(document.querySelectorAll("article table tbody tr, main table tbody tr"))
    .filter(function (row) { return row.cells.length === 6; });
  var sections = headings();

  var words = element("input", { type: "search", placeholder: "words: name, problem, needs …", "aria-label": "words" });
  var needs = choice("needs", COLUMNS.needs);
  var against = choice("against", COLUMNS.against);
  var reference = check("no reference");
  var verified = check("verified only");
  var count = element("output", {});
  [words, needs, against, reference.label, verified.label, count].forEach(function (one) { place.appendChild(one); });
  [words, needs, against, reference.box, verified.box].forEach(function (one) {
    one.addEventListener("input", apply);
    one.addEventListener("change", apply);
  });
  apply();

  function apply() {
    var sought = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    var shown = 0;
    rows.forEach(function (row) {
      var text = (row.textContent + " " + row.dataset.family).toLowerCase();
      var fits = sought.every(function (word) { return text.indexOf(word) >= 0; }) &&
        has(row, COLUMNS.needs, needs.value) &&
        has(row, COLUMNS.against, against.value) &&
        !(reference.box.checked && has(row, COLUMNS.needs, "reference")) &&
        (!verified.box.checked || has(row, COLUMNS.verified, "yes"));
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    sections.forEach(function (section) {
      var empty = section.rows.every(function (row) { return row.hidden; });
      section.nodes.forEach(function (node) { around(node).hidden = empty; });
    });
    count.textContent = shown + " of " + rows.length;
  }

  // The theme puts a scrolling frame around a table, at a time of its own.
  function around(node) {
    return node.closest(".md-typeset__scrollwrap") || node;
  }

  // Each heading with what stands below it, so that a section without a row goes as a whole.
  function headings() {
    var found = [];
    document.querySelectorAll("article h2, article h3").forEach(function (heading) {
      var nodes = [heading], node = heading.nextElementSibling, below = [];
      while (node && !(/^H[23]$/.test(node.tagName) && node.tagName <= heading.tagName)) {
        nodes.push(node);
        below = below.concat(rows.filter(function (row) { return node.contains(row); }));
        node = node.nextElementSibling;
      }
      below.forEach(function (row) { row.dataset.family = (row.dataset.family || "") + " " + heading.textContent; });
      if (below.length) found.push({ rows: below, nodes: heading.tagName === "H3" ? nodes : [heading] });
    });
    document.querySelectorAll("article table").forEach(function (table) {
      var inside = rows.filter(function (row) { return table.contains(row); });
      if (inside.length) found.push({ rows: inside, nodes: [table] });
    });
    return found;
  }

  function cells(row, column) {
    return row.cells[column].textContent.split(",").map(function (part) { return part.trim(); });
  }

  function has(row, column, value) {
    return !value || cells(row, column).indexOf(value) >= 0;
  }

  function choice(name, column) {
    var select = element("select", { "aria-label": name });
    var values = {};
    rows.forEach(function (row) { cells(row, column).forEach(function (value) { values[value] = true; }); });
    delete values["–"];
    select.appendChild(element("option", { value: "" }, name + ": any"));
    Object.keys(values).sort().forEach(function (value) {
      select.appendChild(element("option", { value: value }, name + ": " + value));
    });
    return select;
  }

  function check(text) {
    var box = element("input", { type: "checkbox" });
    var label = element("label", {});
    label.appendChild(box);
    label.appendChild(document.createTextNode(" " + text));
    return { box: box, label: label };
  }

  function element(tag, attributes, text) {
    var made = document.createElement(tag);
    Object.keys(attributes).forEach(function (name) { made.setAttribute(name, attributes[name]); });
    if (text) made.textContent = text;
    return made;
  }
})();
