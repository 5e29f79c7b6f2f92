// Offers names while one is being typed: of tasks or experts, as the API finds them.
"use strict";

for (const input of document.querySelectorAll("input[data-suggest]")) {
  const kind = input.dataset.suggest;
  const list = document.createElement("datalist");
  list.id = `${input.id}-names`;
  input.after(list);
  input.setAttribute("list", list.id);
  let timer = 0;
  let asked = "";
  const offer = async () => {
    const text = input.value.trim();
    if (text === asked) return;
    asked = text;
    const query = kind === "tasks" ? new URLSearchParams({ search: text, limit: "12" }) : "";
    const answer = await fetch(`/api/v1/${kind}?${query}`);
    if (!answer.ok || text !== asked) return;
    const offered = (await answer.json())[kind];
    const key = kind.slice(0, -1);
    const fitting = offered.filter((entry) => entry[key].includes(text)).slice(0, 12);
    list.replaceChildren(...fitting.map((entry) => Object.assign(document.createElement("option"), { value: entry[key] })));
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(offer, 120); };
  input.addEventListener("input", soon);
  input.addEventListener("focus", () => { if (!list.children.length) { asked = null; soon(); } });
}
