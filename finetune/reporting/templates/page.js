// The switch above the frames sets the switch of every frame. It is hidden where no script runs.
const all = document.getElementById("all");
if (all) {
  all.hidden = false;
  all.addEventListener("change", event => {
    for (const choice of document.querySelectorAll(`.frame input[value="${event.target.value}"]`)) choice.checked = true;
  });
}
