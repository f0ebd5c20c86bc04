// What the pages of audits do: a click shows a picture as it was kept, heads of tables sort them,
// a gallery is sorted and filtered. Without scripts a click opens the file, and the order stays.
"use strict";

function shownOnClick(link, image) {
  const censored = image.src;
  link.title = "Show it as it was kept; click again to hide it";
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // in a tab of its own
    event.preventDefault();
    const isShown = image.src !== censored;
    image.onerror = () => {
      image.onerror = null;
      image.src = censored;
      location.href = link.href; // what is no picture for a browser, or is not there
    };
    image.src = isShown ? censored : link.href;
  });
}

function compare(one, other, down) {
  const [a, b] = [parseFloat(one), parseFloat(other)];
  if (Number.isNaN(a) || Number.isNaN(b)) {
    if (Number.isNaN(a) !== Number.isNaN(b)) return Number.isNaN(a) ? 1 : -1; // no number: last
    return one.localeCompare(other) * (down ? -1 : 1);
  }
  return (a - b) * (down ? -1 : 1);
}

function sortedByHeads(table) {
  const [head, ...rows] = table.rows;
  if (rows.length < 3) return;
  for (const [place, cell] of [...head.cells].entries()) {
    const sort = () => {
      const down = cell.ariaSort !== "descending" && cell.classList.contains("number");
      const turned = cell.ariaSort === "ascending" || down;
      for (const each of head.cells) each.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", turned ? "descending" : "ascending");
      const words = (row) => row.cells[place].textContent.trim();
      rows.sort((a, b) => compare(words(a), words(b), turned));
      table.tBodies[0].append(...rows);
    };
    Object.assign(cell, { tabIndex: 0, title: "Sort by this", onclick: sort });
    cell.onkeydown = (event) => event.key === "Enter" && sort();
  }
}

function choice(words, names, change) {
  const label = Object.assign(document.createElement("label"), { textContent: `${words} ` });
  const list = label.appendChild(document.createElement("select"));
  for (const name of names) list.append(new Option(name));
  list.onchange = () => change(list.value);
  return label;
}

function chosen(gallery) {
  const all = [...gallery.children];
  const flagged = (each) => each.classList.contains("flagged");
  const by = {
    "flagged first": () => all,
    "highest score": () => [...all].sort((a, b) => compare(a.dataset.score, b.dataset.score, true)),
    name: () => [...all].sort((a, b) => a.dataset.name.localeCompare(b.dataset.name)),
    seed: () => [...all].sort((a, b) => compare(a.dataset.seed, b.dataset.seed, false)),
  };
  if (all.every((each) => !each.dataset.seed)) delete by.seed;
  const shows = { all: () => true, flagged, "not flagged": (each) => !flagged(each) };
  const tools = Object.assign(document.createElement("p"), { className: "tools" });
  tools.append(
    choice("Sort by", Object.keys(by), (name) => gallery.append(...by[name]())),
    choice("Show", Object.keys(shows), (name) => {
      for (const each of all) each.hidden = !shows[name](each);
    }),
  );
  gallery.before(tools);
}

for (const image of document.querySelectorAll("figure a[href] img"))
  shownOnClick(image.closest("a"), image);
for (const table of document.querySelectorAll("table")) sortedByHeads(table);
for (const gallery of document.querySelectorAll(".gallery"))
  if (gallery.children.length > 2) chosen(gallery);
