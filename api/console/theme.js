/* Dark or light, before the first paint: a classic script, so that no page flashes in the wrong one.
 *
 * Automatic follows the system. What a person chose is a convenience and no secret, so it outlives the tab. */
"use strict";

(() => {
  const KEY = "nexthop-theme";
  const CHOICES = ["automatic", "light", "dark"];
  const SHOWN = { automatic: "Auto theme", light: "Light theme", dark: "Dark theme" };
  const root = document.documentElement;

  function chosen() {
    try {
      const kept = localStorage.getItem(KEY);
      return CHOICES.includes(kept) ? kept : "automatic";
    } catch {
      return "automatic"; // storage is forbidden here: the system's theme will do
    }
  }

  function show(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = SHOWN[theme];
      button.setAttribute("aria-label", `Theme: ${theme}`);
    }
    document.dispatchEvent(new Event("themechange"));
  }

  show(chosen());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(root.dataset.theme));
  document.addEventListener("DOMContentLoaded", () => {
    show(root.dataset.theme);
    document.getElementById("theme").addEventListener("click", () => {
      const next = CHOICES[(CHOICES.indexOf(root.dataset.theme) + 1) % CHOICES.length];
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // it holds for this page all the same
      }
      show(next);
    });
  });
})();
