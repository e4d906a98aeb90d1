import assert from "node:assert";
import { test } from "node:test";
import {
  chance,
  chartLayout,
  extent,
  fixed,
  holdsZero,
  summary,
  ticks,
} from "../../llmlab/static/bias.js";

const mark = { at: 2.5, low: 2, high: 3, p: 0.0002, points: [1.5, 3.5] };
const none = { at: -0.1, low: -0.3, high: 0.1, p: 0.4, points: [] };

test("the axis holds every mark of every model, and zero", () => {
  const [low, high] = extent([[mark], [none]]);
  assert(low < -0.3 && high > 3.5);
  const [from, to] = extent([[mark]]);
  assert(from < 0 && to > 3.5, "zero is on the axis although no mark is there");
  assert(
    extent([[{ at: 0, low: 0, high: 0, p: 1, points: [] }]])[0] < 0,
    "a single point at zero has room",
  );
});

test("ticks are round, inside, and include zero", () => {
  assert.deepEqual(ticks(-0.4, 3.7), [0, 1, 2, 3]);
  assert.deepEqual(ticks(-0.06, 0.13, 4), [-0.05, 0, 0.05, 0.1]);
});

test("numbers in words", () => {
  assert.equal(fixed(-2.345), "−2.35");
  assert.equal(fixed(-0.001), "−0.0010", "an interval near zero keeps its ends apart");
  assert.equal(fixed(-0.00001), "0.00", "no minus before zero");
  assert.equal(chance(0.0002), "p < 0.001");
  assert.equal(chance(0.0421), "p = 0.042");
  assert(!holdsZero(mark) && holdsZero(none));
});

test("the summary says model, measure, number, interval, zero and p", () => {
  assert.equal(
    summary("skewed", "work", mark, "nats"),
    "skewed, work: 2.50 nats over 2 pairs, 95 % interval 2.00 to 3.00, without 0 inside; p < 0.001 (Holm).",
  );
  assert.equal(
    summary("b", "w", none, "nats"),
    "b, w: −0.10 nats, 95 % interval −0.30 to 0.10, with 0 inside; p = 0.400 (Holm).",
  );
});

test("the axis runs from its low end to its high end, a row a measure above it", () => {
  const layout = chartLayout(400, 2, [-1, 1]);
  assert.deepEqual([layout.x(-1), layout.x(0), layout.x(1)], [12, 200, 388]);
  assert.deepEqual([layout.y(0), layout.y(1)], [30, 76]);
  assert.ok(layout.y(1) < layout.floor && layout.floor < layout.height);
  assert.deepEqual(chartLayout(400, 2, [-3, 3]).ticks, [-2, 0, 2]);
  assert.deepEqual(chartLayout(900, 2, [-3, 3]).ticks, [-3, -2, -1, 0, 1, 2, 3], "room for more");
});
