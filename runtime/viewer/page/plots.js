// The plot of the last minute, and the figures that go with it.

export class Minute {
  constructor(seconds) {
    this.seconds = seconds;
    this.points = []; // [at_s, step_ms, age_ms], oldest first
    this.nowS = 0;
  }

  // The points of a message replace those from its first one on: the newest may have grown since.
  add(points, nowS) {
    if (nowS < this.nowS) this.points = []; // the program was started anew
    this.nowS = nowS;
    if (points.length) {
      const from = points[0][0];
      let kept = this.points.length;
      while (kept > 0 && this.points[kept - 1][0] >= from) kept--;
      this.points.length = kept;
      this.points.push(...points);
    }
    const since = nowS - this.seconds;
    let gone = 0;
    while (gone < this.points.length && this.points[gone][0] < since) gone++;
    if (gone) this.points.splice(0, gone);
  }

  percentiles(column) {
    const values = this.points.map((point) => point[column]).sort((a, b) => a - b);
    const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    return values.length ? { p50: at(0.5), p99: at(0.99) } : null;
  }
}

const COLOURS = { age: "#ffb020", step: "#3ba7ff", grid: "#222c38", text: "#8b98a8" };

export function drawMinute(canvas, minute, expectedMs) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  const left = 34 * scale, bottom = 16 * scale, top = 6 * scale;
  const highest = Math.max(expectedMs || 0, 1, ...minute.points.map((point) => Math.max(point[1], point[2])));
  const step = niceStep(highest / 3);
  const ceiling = Math.ceil((highest * 1.02) / step) * step;
  const x = (atS) => left + (1 - (minute.nowS - atS) / minute.seconds) * (width - left);
  const y = (ms) => height - bottom - (ms / ceiling) * (height - bottom - top);
  context.font = `${10 * scale}px system-ui, sans-serif`;
  context.fillStyle = COLOURS.text;
  context.strokeStyle = COLOURS.grid;
  context.lineWidth = scale;
  context.textBaseline = "middle";
  context.textAlign = "right";
  for (let ms = 0; ms <= ceiling + step / 2; ms += step) {
    line(context, [[left, y(ms)], [width, y(ms)]]);
    context.fillText(String(Math.round(ms * 10) / 10), left - 5 * scale, y(ms));
  }
  context.textBaseline = "alphabetic";
  for (const [secondsAgo, align] of [[60, "left"], [30, "center"], [0, "right"]]) {
    context.textAlign = align;
    context.fillText(secondsAgo ? `\u2212${secondsAgo} s` : "now", x(minute.nowS - secondsAgo), height - 3 * scale);
  }
  if (expectedMs) {
    context.setLineDash([4 * scale, 3 * scale]);
    context.strokeStyle = COLOURS.text;
    line(context, [[left, y(expectedMs)], [width, y(expectedMs)]]);
    context.setLineDash([]);
  }
  context.lineWidth = 1.5 * scale;
  for (const [column, colour] of [[1, COLOURS.step], [2, COLOURS.age]]) {
    context.strokeStyle = colour;
    line(context, minute.points.map((point) => [x(point[0]), y(point[column])]));
  }
}

function line(context, places) {
  context.beginPath();
  places.forEach(([x, y], index) => (index ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}
