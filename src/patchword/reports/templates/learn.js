// Sliders only add: without this script every image of a gallery is shown.
for (const gallery of document.querySelectorAll(".gallery[data-slider]")) {
  const tiles = [...gallery.querySelectorAll(".tile")];
  const label = document.createElement("label"), input = document.createElement("input");
  label.className = "slide";
  input.type = "range"; input.min = 0; input.max = tiles.length - 1; input.value = 0;
  label.append(gallery.dataset.slider, input);
  const show = () => {
    tiles.forEach((tile, i) => tile.classList.toggle("now", i === Number(input.value)));
    input.setAttribute("aria-valuetext", tiles[input.value].querySelector("figcaption").textContent);
  };
  input.addEventListener("input", show);
  gallery.classList.add("slides");
  gallery.prepend(label);
  show();
}
