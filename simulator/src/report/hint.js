"use strict";
(() => {
  const box = document.getElementById("hint");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("class", "pointer");
  const text = (tag, content, parent) => {
    const element = parent.appendChild(document.createElement(tag));
    element.textContent = content;
    return element;
  };
  const show = (event) => {
    box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
    box.style.top = Math.max(8, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8)) + "px";
  };
  const hide = () => { box.hidden = true; line.remove(); };
  const inPicture = (svg, event) =>
    new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  for (const svg of document.querySelectorAll("svg[data-hint]")) {
    const hint = JSON.parse(svg.dataset.hint);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const x = inPicture(svg, event).x;
      let nearest = 0;
      hint.x.forEach((place, i) => {
        if (Math.abs(place - x) < Math.abs(hint.x[nearest] - x)) nearest = i;
      });
      line.setAttribute("d", `M${hint.x[nearest]} ${hint.top}V${hint.bottom}`);
      svg.append(line);
      box.replaceChildren();
      text("b", hint.t[nearest], box);
      for (const [name, colour, values] of hint.s) {
        const row = text("div", "", box);
        row.className = colour;
        text("i", "", row);
        text("span", name, row);
        text("em", values[nearest], row);
      }
      box.hidden = false;
      show(event);
    });
  }
  for (const svg of document.querySelectorAll("svg[data-heat]")) {
    const heat = JSON.parse(svg.dataset.heat);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const point = inPicture(svg, event);
      const time = Math.floor((point.x - heat.left) / heat.width);
      const node = Math.floor((point.y - heat.top) / heat.height);
      const code = heat.rows[node]?.substr(2 * time, 2);
      if (!code || point.x < heat.left) return hide();
      box.replaceChildren();
      text("b", heat.nodes[node], box);
      text("div", heat.times[time] + ": " + (code === "ff" ? "not there" : parseInt(code, 16) + " %"), box);
      box.hidden = false;
      show(event);
    });
  }
})();
