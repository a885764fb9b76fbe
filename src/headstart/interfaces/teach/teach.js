// The pad: pointer strokes on white paper; the page reads and clears the drawing through window.headstart.
const pad = element.querySelector('.hs-pad'), canvas = pad.querySelector('canvas'), pen = canvas.getContext('2d');
let strokes = [], now = null;
const paint = () => {
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = pen.fillStyle = '#111';
  pen.lineWidth = canvas.height / 30;
  pen.lineCap = pen.lineJoin = 'round';
  for (const points of strokes) {
    pen.beginPath();
    pen.moveTo(points[0][0], points[0][1]);
    for (const [x, y] of points) pen.lineTo(x, y);
    pen.stroke();
  }
  pad.classList.toggle('hs-drawn', strokes.length > 0);
};
const place = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
};
const end = () => { if (now) { now = null; trigger('input'); } };
canvas.addEventListener('pointerdown', (event) => {
  if (event.button) return;
  canvas.setPointerCapture(event.pointerId);
  now = [place(event), place(event)];
  strokes.push(now);
  paint();
});
canvas.addEventListener('pointermove', (event) => {
  if (!now) return;
  for (const one of event.getCoalescedEvents?.() ?? [event]) now.push(place(one));
  paint();
});
canvas.addEventListener('pointerup', end);
canvas.addEventListener('pointercancel', end);
pad.addEventListener('click', (event) => {
  const what = event.target.dataset.pad;
  if (!what) return;
  strokes = what === 'undo' ? strokes.slice(0, -1) : [];
  paint();
  trigger('input');
});
window.headstart = {
  way: () => document.querySelector('[role=tab][aria-selected=true]')?.innerText.trim() ?? 'Draw',
  drawing: () => (strokes.length ? canvas.toDataURL('image/png') : ''),
  clear: () => { strokes = []; paint(); },
};
paint();
