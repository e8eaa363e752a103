"use strict";
(() => {
  const of = (id) => document.getElementById(id);

  const text = of("document").textContent;
  const bytes = new TextEncoder().encode(text);
  let binary = "";
  for (let at = 0; at < bytes.length; at += 8192) binary += String.fromCharCode(...bytes.subarray(at, at + 8192));
  const reference = of("reference");
  reference.addEventListener("asyncapi-load", () => setTimeout(() => {
    reference.shadowRoot?.querySelector("a[download]")?.setAttribute("download", "asyncapi.json");
  }));
  reference.setAttribute("src", "data:application/json;base64," + btoa(binary));

  of("retries").addEventListener("change", (event) => {
    of("map-plain").hidden = event.target.checked;
    of("map-retries").hidden = !event.target.checked;
    for (const item of document.querySelectorAll(".aside")) item.hidden = !event.target.checked;
  });

  const search = of("search");
  const cards = [...document.querySelectorAll(".message")];
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      card.hidden = !words.every((word) => card.dataset.words.includes(word));
      if (!card.hidden) shown += 1;
    }
    of("found").textContent = words.length ? `${shown} of ${cards.length} messages` : `${cards.length} messages`;
  };
  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") cards.find((card) => !card.hidden)?.focus();
    if (event.key === "Escape") { search.value = ""; filter(); }
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.composedPath().some((at) => at instanceof HTMLElement && at.matches("input, textarea, select"));
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    search.focus();
  });

  // A link to a message that the search hides: show it.
  const arrive = () => {
    const to = location.hash && of(decodeURIComponent(location.hash.slice(1)));
    if (!to || !to.matches(".message, .service")) return;
    if (to.hidden) { search.value = ""; filter(); }
    to.scrollIntoView();
    to.focus({ preventScroll: true });
  };
  addEventListener("hashchange", arrive);
  arrive();

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.nextElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
})();
