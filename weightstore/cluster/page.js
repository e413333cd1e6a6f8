"use strict";
(() => {
  document.documentElement.classList.add("live");

  const page = location.protocol === "file:" ? decodeURIComponent(location.pathname) : location.origin + location.pathname;
  const here = page.replace(/\/(index\.html)?$/, "");
  document.querySelectorAll(".address").forEach((place) => {
    place.textContent = /^[\w:/.@%+~-]+$/.test(here) ? here : `'${here.replaceAll("'", "'\\''")}'`;
  });

  const copy = async (text) => {
    if (navigator.clipboard) {
      try {
        await navigator.clipboard.writeText(text);
        return true;
      } catch { /* not allowed here: the old way */ }
    }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy"); // plain http has no clipboard
    area.remove();
    return done;
  };
  document.querySelectorAll(".command").forEach((place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      button.textContent = (await copy(place.querySelector("code").textContent)) ? "copied" : "failed";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    place.append(button);
  });

  const table = document.getElementById("weights");
  if (!table) return; // an empty store
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.getElementById("search");
  const count = document.getElementById("count");

  // What is searched is what is told of the weights, and not the command, which is much the same for all.
  const texts = rows.map((row) => {
    const told = row.cloneNode(true);
    told.querySelectorAll(".command").forEach((command) => command.remove());
    return `${told.textContent} ${row.id.slice("sha256-".length)}`.toLowerCase();
  });
  const find = () => {
    const words = search.value.toLowerCase().split(/\s+/).map((word) => word.replace(/^sha256:/, "")).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !words.every((word) => texts[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    count.textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  search.addEventListener("input", find);
  find();

  // Numbers lie in data-value; whatever has none is last, whichever way it is sorted.
  const heads = Array.from(table.tHead.rows[0].cells);
  const sortBy = (column, up) => {
    const valueOf = (row) => {
      const cell = row.cells[column];
      if (!cell.classList.contains("sortable")) return (cell.querySelector(".name") || cell).textContent.trim().toLowerCase();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const keyed = rows.map((row) => [valueOf(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || a === "" || b === null || b === "") {
        return (a === null || a === "" ? 1 : 0) - (b === null || b === "" ? 1 : 0);
      }
      const order = typeof a === "number" ? a - b : a.localeCompare(b);
      return up ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row));
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };
  // Where rows are cards there are no heads to press.
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "Sort by");
  heads.slice(0, 6).forEach((head, column) => choice.add(new Option(`by ${head.textContent.toLowerCase()}`, column)));
  choice.addEventListener("change", () => {
    const column = Number(choice.value);
    sortBy(column, !(column > 1 && heads[column].classList.contains("number")));
  });
  search.after(choice);

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const first = head.classList.contains("number") && column > 1 ? "descending" : "ascending";
      sortBy(column, now === null ? first === "ascending" : now === "descending");
    });
  });
})();
