"use strict";
// Draws the plots that are shown, and shows those of one setting. Without it every table of the page is open.
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const panels = [...document.querySelectorAll(".panel")];
  const buttons = [...document.querySelectorAll("input[name=setting]")];
  const config = { displayModeBar: false, doubleClick: false, responsive: true };

  const draw = (plot) => {
    if (plot.childElementCount > 0) {
      Plotly.Plots.resize(plot); // it may have been hidden while the window changed
      return;
    }
    const { data, layout } = figures[plot.id];
    Plotly.newPlot(plot, data, layout, config);
  };

  const show = (setting) => {
    for (const panel of panels) {
      panel.hidden = panel.dataset.setting !== setting;
      if (!panel.hidden) panel.querySelectorAll(".plot > div").forEach(draw);
    }
  };

  document.documentElement.classList.add("drawn");
  for (const details of document.querySelectorAll("details")) details.open = false;
  for (const button of buttons) button.addEventListener("change", () => show(button.value));
  // Browsers keep the choice when a page is loaded again.
  show(buttons.find((button) => button.checked)?.value ?? "0");
  // Plotly measures texts in here.
  document.getElementById("js-plotly-tester")?.setAttribute("aria-hidden", "true");
})();
