// Boxes on a canvas, and which box is under a pointer.

const WEIGHTS = [0.299, 0.587, 0.114]; // of red, green and blue in brightness

export const css = (color) => `rgb(${color.join(" ")})`;

// Draws detections; `scale` is canvas pixels per pixel of the picture, `unit` the width of a line.
export function drawBoxes(context, objects, active, scale, unit) {
  const last = objects.filter((object) => object.index === active);
  const others = objects.filter((object) => object.index !== active);
  for (const object of [...others.reverse(), ...last]) { // the best on top, the active one above all
    drawBox(context, object, object.index === active, scale, unit);
  }
}

function drawBox(context, { box, name, score, color }, active, scale, unit) {
  const [x1, y1, x2, y2] = box.map((value) => value * scale);
  const letters = 6.5 * unit;
  context.strokeStyle = context.fillStyle = css(color);
  context.lineWidth = active ? 2 * unit : unit;
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  if (active) {
    context.globalAlpha = 0.2;
    context.fillRect(x1, y1, x2 - x1, y2 - y1);
    context.globalAlpha = 1;
  }
  const text = `${name} ${score.toFixed(2)}`;
  context.font = `600 ${letters}px system-ui, sans-serif`;
  const width = context.measureText(text).width + letters * 0.6;
  const left = Math.max(0, Math.min(x1 - unit / 2, context.canvas.width - width));
  const top = y1 >= 1.3 * letters ? y1 - 1.3 * letters : y1;
  context.fillRect(left, top, width, 1.3 * letters);
  const bright = color.reduce((sum, value, i) => sum + WEIGHTS[i] * value, 0) > 125;
  context.fillStyle = bright ? "#111" : "#fff";
  context.textBaseline = "middle";
  context.fillText(text, left + letters * 0.3, top + 0.68 * letters);
}

// The smallest of the boxes around a point of the picture: large ones often hold others.
export function objectAt(objects, x, y) {
  const area = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  return objects
    .filter(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3])
    .sort((one, other) => area(one) - area(other))[0];
}
