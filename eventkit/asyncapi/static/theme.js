"use strict";
(() => {
  // Light or dark: as it was chosen last, else as the system says. A page without the button has the colours alone.
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const colours = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    button?.setAttribute("aria-pressed", String(dark));
  };
  const kept = () => { try { return localStorage.getItem("eventkit-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("eventkit-theme", name); } catch { /* a private window */ } };
  colours(kept() ? kept() === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  button?.addEventListener("click", () => {
    colours(root.dataset.theme !== "dark");
    keep(root.dataset.theme);
  });
})();
