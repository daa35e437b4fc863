// Multi-resolution feature grids: values, squared error and gradients in one pass over the points.
//
// Points go through in tiles, feature by feature: row f of a tile holds feature f of every point, so
// that points are the lanes of a vector whatever the widths of the maps are.
//
// On a lattice, a dense level is interpolated along the last axis first, and only once per row of
// the *table* (of which coarse levels have few); rows of the lattice are then blends of whole rows,
// without an index in them. Gradients go the same way back: rows of the lattice add up in rows that
// belong to rows of the table, and these are brought down to nodes once they are complete.
//
// Scattered points, and hashed levels anywhere, take a gather of 2^d corners each. Their gradients
// by features are kept for a slab of points, and added to the tables in a second phase, in which
// every thread has levels, features or nodes of its own: no sum depends on who was first.
//
// Every sum is made in an order that depends on the number of threads only.
#include "common.h"

namespace {

using namespace inr;

constexpr int MAX_AXES = 8;
constexpr int GROUP = 16;           // points: a lattice's rows are cut into groups of so many
constexpr int FLUSH = 32;           // tiles whose sums for the maps are added up in float32
constexpr int64_t SLAB = 1 << 18;   // points whose gradients by features are kept at a time
constexpr int64_t SPAN_BYTES = 1 << 20;  // of the rows that a thread keeps of all levels
constexpr int64_t LANE_SUMS = 1 << 15;   // entries x lanes of a map that is summed lane by lane
constexpr double THREAD_WORK = 4e6;      // multiplications that are worth a thread: about 100 us

// the same as fields.kernels.reference.PRIMES
constexpr uint32_t PRIMES[MAX_AXES] = {1u,          2654435761u, 805459861u,  3674653429u,
                                       2097192037u, 1434869437u, 2165219737u, 1546526257u};

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 6, VECTORS = 4;      // accumulators of a product, of 32 registers
constexpr int SUMS_OUT = 6, SUMS_IN = 4;  // and of a sum over points
#else
constexpr int ROWS = 6, VECTORS = 2;      // of 16
constexpr int SUMS_OUT = 3, SUMS_IN = 4;
#endif

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// ---- the maps ----

// out[r][p] = start + sum over k < depth of a[r * row + k * column] * x[k][p]
struct Product {
  const float *a;
  int64_t row, column;
  int depth;
  const float *x;
  float *out;
  int64_t stride;  // floats from a row of x or out to the next
  bool bias;       // start with a[r * row + depth * column]
  bool add;        // and with what is in out
  int relu;        // rows from here on end in a ReLU
  bool mask;       // out holds what ReLUs gave: let through where that is positive
};

template <int R, int V>
void product_block(const Product &g, int r0, int64_t p0) {
  vec sums[R][V];
  const float *a[R];
  for (int r = 0; r < R; r++) {
    a[r] = g.a + (r0 + r) * g.row;
    float start = g.bias ? a[r][g.depth * g.column] : 0.0f;
    for (int v = 0; v < V; v++) {
      sums[r][v] = splat(start);
      if (g.add) sums[r][v] += load(g.out + (r0 + r) * g.stride + p0 + v * LANES);
    }
  }
  const float *x = g.x + p0;
  int64_t at = 0;
  for (int k = 0; k < g.depth; k++, x += g.stride, at += g.column) {
    vec given[V];
    for (int v = 0; v < V; v++) given[v] = load(x + v * LANES);
    for (int r = 0; r < R; r++) {
      vec factor = splat(a[r][at]);
      for (int v = 0; v < V; v++) sums[r][v] += factor * given[v];
    }
  }
  for (int r = 0; r < R; r++) {
    float *out = g.out + (r0 + r) * g.stride + p0;
    for (int v = 0; v < V; v++) {
      vec y = sums[r][v];
      // comparisons with NaN are false, so that it passes both
      if (r0 + r >= g.relu) y = select(y < 0.0f, vec{}, y);
      if (g.mask) y = select(load(out + v * LANES) <= 0.0f, vec{}, y);
      store(out + v * LANES, y);
    }
  }
}

template <int V>
void product_rows(const Product &g, int rows, int64_t p0) {
  // blocks of nearly equal size: six and one would waste the second
  int blocks = static_cast<int>(ceil_div(rows, ROWS));
  for (int b = 0, r = 0; b < blocks; b++) {
    int count = (rows - r + blocks - b - 1) / (blocks - b);
    switch (count) {
      case 1: product_block<1, V>(g, r, p0); break;
      case 2: product_block<2, V>(g, r, p0); break;
      case 3: product_block<3, V>(g, r, p0); break;
      case 4: product_block<4, V>(g, r, p0); break;
      case 5: product_block<5, V>(g, r, p0); break;
      default: product_block<6, V>(g, r, p0); break;
    }
    r += count;
  }
}

void product(const Product &g, int rows, int64_t points) {
  int64_t p = 0;
  for (; p + VECTORS * LANES <= points; p += VECTORS * LANES) product_rows<VECTORS>(g, rows, p);
  for (; p < points; p += LANES) product_rows<1>(g, rows, p);
}

// Sums over points of outer products: sums[j][k] += du[j][p] x[k][p].
struct Sums {
  const float *du, *x;
  int64_t stride, points;
  int in;         // columns
  float *lanes;   // [j][k][LANES], added to where there is room for it
  double *total;  // [j][k], added to where not
};

template <int J, int K>
void sums_block(const Sums &s, int j0, int k0) {
  vec sums[J][K] = {};
  for (int64_t p = 0; p < s.points; p += LANES) {
    vec x[K];
    for (int k = 0; k < K; k++) x[k] = load(s.x + (k0 + k) * s.stride + p);
    for (int j = 0; j < J; j++) {
      vec du = load(s.du + (j0 + j) * s.stride + p);
      for (int k = 0; k < K; k++) sums[j][k] += du * x[k];
    }
  }
  for (int j = 0; j < J; j++) {
    for (int k = 0; k < K; k++) {
      int64_t at = static_cast<int64_t>(j0 + j) * s.in + k0 + k;
      if (s.lanes) {
        store(s.lanes + at * LANES, load(s.lanes + at * LANES) + sums[j][k]);
      } else {
        s.total[at] += sum(sums[j][k]);
      }
    }
  }
}

template <int J>
void sums_columns(const Sums &s, int j0) {
  int blocks = static_cast<int>(ceil_div(s.in, SUMS_IN));
  for (int b = 0, k = 0; b < blocks; b++) {
    int count = (s.in - k + blocks - b - 1) / (blocks - b);
    switch (count) {
      case 1: sums_block<J, 1>(s, j0, k); break;
      case 2: sums_block<J, 2>(s, j0, k); break;
      case 3: sums_block<J, 3>(s, j0, k); break;
      default: sums_block<J, 4>(s, j0, k); break;
    }
    k += count;
  }
}

void outer_sums(const Sums &s, int out) {
  int blocks = static_cast<int>(ceil_div(out, SUMS_OUT));
  for (int b = 0, j = 0; b < blocks; b++) {
    int count = (out - j + blocks - b - 1) / (blocks - b);
    switch (count) {
      case 1: sums_columns<1>(s, j); break;
      case 2: sums_columns<2>(s, j); break;
      case 3: sums_columns<3>(s, j); break;
#if defined(__AVX512F__) || defined(__aarch64__)
      case 4: sums_columns<4>(s, j); break;
      case 5: sums_columns<5>(s, j); break;
      default: sums_columns<6>(s, j); break;
#else
      default: __builtin_unreachable();
#endif
    }
    j += count;
  }
}

// Matrices with their bias as last column. The first one has the linear map's rows, then those of
// the MLP's first layer, as both see the same features.
struct Map {
  int in, out;
  std::vector<float> entries;  // [out][in + 1]
  int64_t at;                  // of its output in a tile, in rows; a row of ones follows it
};

void pack(Map &map, int row, int rows, const float *weight, const float *bias) {
  for (int r = 0; r < rows; r++) {
    float *to = map.entries.data() + static_cast<int64_t>(row + r) * (map.in + 1);
    std::memcpy(to, weight + static_cast<int64_t>(r) * map.in, map.in * sizeof(float));
    to[map.in] = bias ? bias[r] : 0.0f;
  }
}

// ---- the levels ----

// Nodes below coordinates, and the weights of those above them; in double precision, as float32 has
// no more than four digits for the weights between a thousand nodes. `inside` gets 1 where the
// position follows the coordinate, 0 where it is held at the border; null if nobody asks.
void find_cells(const float *x, int64_t step, int64_t count, int64_t nodes, int32_t *below,
                float *weight, float *inside) {
  double half = 0.5 * static_cast<double>(nodes), last = static_cast<double>(nodes - 1);
  double most = std::max(last - 1, 0.0);
  for (int64_t i = 0; i < count; i++) {
    double position = (static_cast<double>(x[i * step]) + 1) * half - 0.5;
    double held = position < 0 ? 0 : position;
    held = held > last ? last : held;
    // NaN stays in the weight, and takes the first node
    double node = std::floor(held > 0 ? held : 0);
    node = node > most ? most : node;
    below[i] = static_cast<int32_t>(node);
    weight[i] = static_cast<float>(held - node);
  }
  for (int64_t i = 0; inside && i < count; i++) {
    double position = (static_cast<double>(x[i * step]) + 1) * half - 0.5;
    inside[i] = position >= 0 && position <= last ? 1.0f : 0.0f;
  }
}

struct Level {
  int features, first;  // number, and its first row in a tile
  bool hashed, by_rows;
  int64_t size;  // of the table, per feature
  int64_t nodes[MAX_AXES], step[MAX_AXES];
  const float *table;
  float *grad;
  // of a dense level on a lattice: rows of the table that are blended, relative to the lowest
  int corners;
  int outer[MAX_AXES], outers;
  std::vector<int64_t> offset;
  // cells of a lattice's coordinates
  std::vector<int32_t> below[MAX_AXES];
  std::vector<float> weight[MAX_AXES];
  int64_t kept;  // row of the features' gradients that are kept for the second phase
};

struct Box {
  int64_t row0, row1, x0, x1;
  int64_t rows() const { return row1 - row0; }
  int64_t width() const { return x1 - x0; }
  int64_t points() const { return rows() * width(); }
};

struct Job {
  int threads, axes, channels;
  bool lattice, gradients;
  int64_t length[MAX_AXES];
  int64_t rows, points;  // rows of the lattice, and points of each; 1 and all for scattered ones
  const float *coords;   // (points, axes) of scattered ones
  const float *axis[MAX_AXES];
  const float *targets, *upstream;
  float *values, *grad_coords;
  std::vector<Level> levels;
  std::vector<Map> maps;
  int features;          // of all levels
  int tile;              // points
  int64_t stride, high;  // floats per row of a tile, and its rows
  int64_t span;          // points of a lattice's row that are done at a time
  int64_t kept_rows;
  Floats kept;  // [kept_rows][points of a slab]
  Box slab;
};

// A piece of a row of the lattice, in a tile from `at` on.
struct Piece {
  int64_t row, x;
  int at, count, width;  // points, and points with what fills the last group
};

// The adjoint of interpolation along the last axis, for the nodes that a span of points touches.
struct Adjoint {
  int64_t first, nodes;
  std::vector<int64_t> start;  // by group of nodes, in steps
  std::vector<int32_t> index;  // [step][GROUP]: a point for each node
  std::vector<float> weight;
  std::vector<int32_t> window;  // by step
  std::vector<int32_t> count;   // of a node's points, while it is made
};

// Rows that belong to rows of a level's table, while rows of the lattice between them are done.
struct Rows {
  int64_t row = -1, base = -1;  // of the lattice; lowest of the table around it
  std::vector<int64_t> id;      // by slot, -1 where there is none
  std::vector<int> slot;  // by corner
  std::vector<float> weight;
  Floats data;  // [slot][feature][span]
};

struct Worker {
  Box share;
  double loss = 0;
  Floats tile, lanes;
  std::vector<std::vector<double>> totals;  // by map
  std::vector<Rows> values, sums;           // by level
  std::vector<Adjoint> adjoints;
  std::vector<int32_t> low, high;  // [level][point of the span]
  std::vector<int32_t> start;      // of the windows that their groups are in
  std::vector<float> weight;
  // nodes along a lattice's first axis: rows from `own0` to `own1` are this thread's to fill with
  // zeros, those from `shared0` to `shared1` are added to by threads before it
  struct Part {
    int64_t own0, own1, shared0, shared1;
    std::vector<float> grad;  // [feature][row][node] of the shared ones
  };
  std::vector<Part> parts;
  std::vector<Piece> pieces;
  // of points whose corners are gathered
  std::vector<int32_t> below;
  std::vector<float> above, inside, factor, dots;
  std::vector<int32_t> corner;
  std::vector<float> moved;  // gradient by coordinates, [axis][point]
  int64_t span0 = 0, span_count = 0, span_width = 0;  // its first point, points, whole groups
  bool few_rows = false;  // so few that an adjoint is not worth making
  int since_flush = 0;
};

// ---- dense levels on a lattice ----

constexpr int WINDOW = 32;  // floats that two of AVX-512's registers hold

// Where a window starts that holds all of a group's places; -1 if they are too far apart.
INR_INLINE int32_t window(int32_t lowest, int32_t highest) {
  return highest - lowest < WINDOW ? lowest : -1;
}

// from[index[i]] for a vector of places, of which there are `count`. Neighbouring points mostly have
// neighbouring nodes: two loads and a permutation then do what would be a load for each.
INR_INLINE vec pick(const float *from, const int32_t *index, [[maybe_unused]] int32_t start,
                    [[maybe_unused]] int64_t count) {
#if defined(__AVX512F__)
  __m512i at = _mm512_loadu_si512(index);
  __m512 zero = _mm512_setzero_ps();
  if (start < 0)
    return reinterpret_cast<vec>(_mm512_mask_i32gather_ps(zero, 0xffff, at, from, 4));
  int64_t left = count - start;
  auto mask = [](int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << n) - 1); };
  __m512 low = _mm512_maskz_loadu_ps(mask(left), from + start);
  __m512 high = _mm512_maskz_loadu_ps(mask(left > 16 ? left - 16 : 0), from + start + 16);
  return reinterpret_cast<vec>(
      _mm512_permutex2var_ps(low, _mm512_sub_epi32(at, _mm512_set1_epi32(start)), high));
#else
  vec picked;
  for (int i = 0; i < LANES; i++) picked[i] = from[index[i]];
  return picked;
#endif
}

// The rows of the table around a row of the lattice; true if they are not those there were.
bool around(const Job &job, const Level &level, int64_t row, Rows &rows) {
  if (row == rows.row) return false;
  rows.row = row;
  int64_t base = 0;
  for (int c = 0; c < level.corners; c++) rows.weight[c] = 1.0f;
  int bit = 0;
  int64_t index[MAX_AXES];
  for (int a = job.axes - 2; a >= 0; a--) {
    index[a] = row % job.length[a];
    row /= job.length[a];
  }
  for (int i = 0; i < level.outers; i++, bit++) {
    int a = level.outer[i];
    base += level.below[a][index[a]] * (level.step[a] / level.nodes[job.axes - 1]);
    float above = level.weight[a][index[a]];
    for (int c = 0; c < level.corners; c++)
      rows.weight[c] *= (c >> bit) & 1 ? above : 1.0f - above;
  }
  bool moved = base != rows.base;
  rows.base = base;
  return moved;
}

// Give each corner a slot: one that has its row already, or else one that no corner needs; `leave`
// is called with what goes, `enter` with what comes.
template <class Leave, class Enter>
void assign(const Level &level, Rows &rows, Leave &&leave, Enter &&enter) {
  int count = level.corners;
  uint64_t used[2] = {0, 0};
  for (int c = 0; c < count; c++) {
    int64_t id = rows.base + level.offset[c];
    rows.slot[c] = -1;
    for (int s = 0; s < count; s++) {
      if (rows.id[s] == id) {
        rows.slot[c] = s;
        used[s >> 6] |= uint64_t{1} << (s & 63);
      }
    }
  }
  int s = 0;
  for (int c = 0; c < count; c++) {
    if (rows.slot[c] >= 0) continue;
    while (used[s >> 6] >> (s & 63) & 1) s++;
    if (rows.id[s] >= 0) leave(s, rows.id[s]);
    rows.id[s] = rows.base + level.offset[c];
    enter(s, rows.id[s]);
    rows.slot[c] = s++;
  }
}

float *slot_row(const Job &job, const Level &level, Rows &rows, int slot, int feature) {
  return rows.data.get() + (static_cast<int64_t>(slot) * level.features + feature) * job.span;
}

// Interpolate a row of a table at the points of the span.
void expand(const Job &job, Worker &w, int l, int slot, int64_t id) {
  const Level &level = job.levels[l];
  int64_t n = level.nodes[job.axes - 1], count = w.span_width;
  const int32_t *low = w.low.data() + l * job.span, *high = w.high.data() + l * job.span;
  const float *weight = w.weight.data() + l * job.span;
  const int32_t *start = w.start.data() + l * job.span / GROUP;
  for (int f = 0; f < level.features; f++) {
    const float *from = level.table + f * level.size + id * n;
    float *to = slot_row(job, level, w.values[l], slot, f);
    for (int64_t i = 0; i < count; i += LANES) {
      vec below = pick(from, low + i, start[i / GROUP], n);
      vec above = pick(from, high + i, start[i / GROUP], n);
      store(to + i, below + load(weight + i) * (above - below));
    }
  }
}

// Bring a row's gradients down to the nodes of the table's row, and begin anew.
void settle(const Job &job, Worker &w, int l, int slot, int64_t id) {
  const Level &level = job.levels[l];
  const Adjoint &adjoint = w.adjoints[l];
  int64_t n = level.nodes[job.axes - 1];
  int64_t per_first = level.size / n / (job.axes > 1 ? level.nodes[0] : 1);
  const Worker::Part &part = w.parts[l];
  int64_t place = id / per_first;
  float *grad = level.grad + id * n;
  int64_t apart = level.size;
  if (place >= part.shared0 && place < part.shared1) {
    grad = w.parts[l].grad.data() + (id - part.shared0 * per_first) * n;
    apart = (part.shared1 - part.shared0) * per_first * n;
  }
  for (int f = 0; f < level.features; f++) {
    const float *from = slot_row(job, level, w.sums[l], slot, f);
    if (w.few_rows) {
      const int32_t *low = w.low.data() + l * job.span, *high = w.high.data() + l * job.span;
      const float *weight = w.weight.data() + l * job.span;
      float *to = grad + f * apart;
      for (int64_t i = 0; i < w.span_count; i++) {
        to[low[i]] += (1.0f - weight[i]) * from[i];
        to[high[i]] += weight[i] * from[i];
      }
      continue;
    }
    float *to = grad + f * apart + adjoint.first;
    for (int64_t g = 0; g * GROUP < adjoint.nodes; g++) {
      float *at = to + g * GROUP;
      int64_t left = adjoint.nodes - g * GROUP;
      for (int half = 0; half < GROUP && half < left; half += LANES) {
        vec sums = {};
        for (int64_t s = adjoint.start[g]; s < adjoint.start[g + 1]; s++)
          sums += load(adjoint.weight.data() + s * GROUP + half) *
                  pick(from, adjoint.index.data() + s * GROUP + half, adjoint.window[s], job.span);
        if (left - half >= LANES) {
          store(at + half, load(at + half) + sums);
        } else {
          for (int i = 0; half + i < left; i++) at[half + i] += sums[i];
        }
      }
    }
  }
}

void clear(const Job &job, Worker &w, int l, int slot) {
  const Level &level = job.levels[l];
  std::memset(slot_row(job, level, w.sums[l], slot, 0), 0,
              sizeof(float) * level.features * job.span);
}

void adjoint_of(const Job &job, Worker &w, int l, int64_t count) {
  Adjoint &a = w.adjoints[l];
  const int32_t *low = w.low.data() + l * job.span, *high = w.high.data() + l * job.span;
  const float *weight = w.weight.data() + l * job.span;
  int32_t first = low[0], last = high[0];
  for (int64_t i = 0; i < count; i++) {
    first = std::min(first, low[i]);
    last = std::max(last, high[i]);
  }
  a.first = first;
  a.nodes = last - first + 1;
  int64_t groups = ceil_div(a.nodes, GROUP);
  a.count.assign(groups * GROUP, 0);
  for (int64_t i = 0; i < count; i++) {
    a.count[low[i] - first]++;
    if (weight[i] != 0) a.count[high[i] - first]++;
  }
  a.start.assign(groups + 1, 0);
  for (int64_t g = 0; g < groups; g++) {
    auto from = a.count.begin() + g * GROUP;
    a.start[g + 1] = a.start[g] + *std::max_element(from, from + GROUP);
  }
  a.index.assign(a.start[groups] * GROUP, -1);
  a.weight.assign(a.start[groups] * GROUP, 0.0f);
  std::fill(a.count.begin(), a.count.end(), 0);
  auto add = [&](int32_t node, int64_t point, float share) {
    int64_t place = node - first;
    int64_t at = (a.start[place / GROUP] + a.count[place]++) * GROUP + place % GROUP;
    a.index[at] = static_cast<int32_t>(point);
    a.weight[at] = share;
  };
  for (int64_t i = 0; i < count; i++) {
    add(low[i], i, 1.0f - weight[i]);
    if (weight[i] != 0) add(high[i], i, weight[i]);
  }
  a.window.resize(a.start[groups]);
  for (int64_t s = 0; s < a.start[groups]; s++) {
    int32_t *index = a.index.data() + s * GROUP;
    int32_t highest = *std::max_element(index, index + GROUP), lowest = highest;
    for (int i = 0; i < GROUP; i++)
      if (index[i] >= 0) lowest = std::min(lowest, index[i]);
    // nodes with fewer points than others of their group take any, times 0
    for (int i = 0; i < GROUP; i++) index[i] = index[i] < 0 ? lowest : index[i];
    a.window[s] = window(lowest, highest);
  }
}

// Cells along the last axis of the points of a span, and their adjoint.
void begin_span(const Job &job, Worker &w, int64_t x0, int64_t count) {
  w.span0 = x0;
  w.span_count = count;
  w.span_width = round_up(count, GROUP);
  w.few_rows = w.share.rows() <= 4;
  int last = job.axes - 1;
  for (size_t l = 0; l < job.levels.size(); l++) {
    const Level &level = job.levels[l];
    if (!level.by_rows) continue;
    int32_t *low = w.low.data() + l * job.span, *high = w.high.data() + l * job.span;
    float *weight = w.weight.data() + l * job.span;
    int32_t most = static_cast<int32_t>(level.nodes[last] - 1);
    for (int64_t i = 0; i < w.span_width; i++) {
      int64_t x = x0 + std::min(i, count - 1);
      low[i] = level.below[last][x];
      high[i] = std::min(low[i] + 1, most);
      weight[i] = level.weight[last][x];
    }
    int32_t *start = w.start.data() + static_cast<int64_t>(l) * job.span / GROUP;
    for (int64_t i = 0; i < w.span_width; i += GROUP)
      start[i / GROUP] = window(*std::min_element(low + i, low + i + GROUP),
                                *std::max_element(high + i, high + i + GROUP));
    w.values[l].row = w.values[l].base = -1;
    std::fill(w.values[l].id.begin(), w.values[l].id.end(), -1);
    if (!job.gradients) continue;
    w.sums[l].row = w.sums[l].base = -1;
    std::fill(w.sums[l].id.begin(), w.sums[l].id.end(), -1);
    if (!w.few_rows) adjoint_of(job, w, static_cast<int>(l), count);
  }
}

void end_span(const Job &job, Worker &w) {
  if (!job.gradients) return;
  for (size_t l = 0; l < job.levels.size(); l++) {
    if (!job.levels[l].by_rows) continue;
    Rows &rows = w.sums[l];
    for (int s = 0; s < job.levels[l].corners; s++)
      if (rows.id[s] >= 0) settle(job, w, static_cast<int>(l), s, rows.id[s]);
  }
}

template <int CORNERS>
void blend(const Job &job, const Level &level, Rows &rows, const Piece &piece, int64_t x,
           float *z) {
  int corners = CORNERS ? CORNERS : level.corners;
  for (int f = 0; f < level.features; f++, z += job.stride) {
    const float *from = rows.data.get() + f * job.span + x;
    int64_t apart = level.features * job.span;
    for (int i = 0; i < piece.width; i += LANES) {
      vec y = splat(rows.weight[0]) * load(from + rows.slot[0] * apart + i);
      for (int c = 1; c < corners; c++)
        y += splat(rows.weight[c]) * load(from + rows.slot[c] * apart + i);
      store(z + i, y);
    }
  }
}

template <int CORNERS>
void unblend(const Job &job, const Level &level, Rows &rows, const Piece &piece, int64_t x,
             const float *dz) {
  int corners = CORNERS ? CORNERS : level.corners;
  for (int f = 0; f < level.features; f++, dz += job.stride) {
    float *to = rows.data.get() + f * job.span + x;
    int64_t apart = level.features * job.span;
    for (int i = 0; i < piece.width; i += LANES) {
      vec y = load(dz + i);
      for (int c = 0; c < corners; c++) {
        float *sums = to + rows.slot[c] * apart + i;
        store(sums, load(sums) + splat(rows.weight[c]) * y);
      }
    }
  }
}

void interpolate_rows(const Job &job, Worker &w, int l, const Piece &piece) {
  const Level &level = job.levels[l];
  Rows &rows = w.values[l];
  if (around(job, level, piece.row, rows))
    assign(level, rows, [](int, int64_t) {},
           [&](int slot, int64_t id) { expand(job, w, l, slot, id); });
  float *z = w.tile.get() + level.first * job.stride + piece.at;
  int64_t x = piece.x - w.span0;
  switch (level.corners) {
    case 1: blend<1>(job, level, rows, piece, x, z); break;
    case 2: blend<2>(job, level, rows, piece, x, z); break;
    case 4: blend<4>(job, level, rows, piece, x, z); break;
    default: blend<0>(job, level, rows, piece, x, z); break;
  }
}

void spread_rows(const Job &job, Worker &w, int l, const Piece &piece) {
  const Level &level = job.levels[l];
  Rows &rows = w.sums[l];
  if (around(job, level, piece.row, rows))
    assign(level, rows, [&](int slot, int64_t id) { settle(job, w, l, slot, id); },
           [&](int slot, int64_t) { clear(job, w, l, slot); });
  const float *dz = w.tile.get() + level.first * job.stride + piece.at;
  int64_t x = piece.x - w.span0;
  switch (level.corners) {
    case 1: unblend<1>(job, level, rows, piece, x, dz); break;
    case 2: unblend<2>(job, level, rows, piece, x, dz); break;
    case 4: unblend<4>(job, level, rows, piece, x, dz); break;
    default: unblend<0>(job, level, rows, piece, x, dz); break;
  }
}

// ---- points whose corners are gathered ----

// Cells of up to a tile's points, from one row.
void cells(const Job &job, Worker &w, const Level &level, int64_t row, int64_t x, int count) {
  for (int a = job.axes - 1; a >= 0; a--) {
    int32_t *below = w.below.data() + a * job.tile;
    float *above = w.above.data() + a * job.tile, *inside = w.inside.data() + a * job.tile;
    if (!job.lattice) {
      find_cells(job.coords + x * job.axes + a, job.axes, count, level.nodes[a], below, above,
                 job.grad_coords ? inside : nullptr);
    } else if (a == job.axes - 1) {
      std::memcpy(below, level.below[a].data() + x, count * sizeof(int32_t));
      std::memcpy(above, level.weight[a].data() + x, count * sizeof(float));
    } else {
      int64_t at = row % job.length[a];
      row /= job.length[a];
      std::fill(below, below + count, level.below[a][at]);
      std::fill(above, above + count, level.weight[a][at]);
    }
  }
}

// Place in the table of one corner of each cell.
void places(const Job &job, Worker &w, const Level &level, int corner, int count) {
  int32_t *place = w.corner.data();
  std::fill(place, place + count, 0);
  for (int a = 0; a < job.axes; a++) {
    const int32_t *below = w.below.data() + a * job.tile;
    int32_t up = (corner >> (job.axes - 1 - a)) & 1;
    int32_t most = static_cast<int32_t>(level.nodes[a] - 1);
    if (level.hashed) {
      for (int i = 0; i < count; i++)
        place[i] ^= static_cast<int32_t>(
            static_cast<uint32_t>(std::min(below[i] + up, most)) * PRIMES[a]);
    } else {
      int32_t step = static_cast<int32_t>(level.step[a]);
      for (int i = 0; i < count; i++) place[i] += std::min(below[i] + up, most) * step;
    }
  }
  if (!level.hashed) return;
  uint32_t size = static_cast<uint32_t>(level.size);
  if ((size & (size - 1)) == 0) {
    for (int i = 0; i < count; i++) place[i] &= static_cast<int32_t>(size - 1);
  } else {
    for (int i = 0; i < count; i++)
      place[i] = static_cast<int32_t>(static_cast<uint32_t>(place[i]) % size);
  }
}

// Weight of one corner of each cell, without the part of one axis (-1: with all).
void shares(const Job &job, Worker &w, int corner, int count, int without) {
  float *factor = w.factor.data();
  std::fill(factor, factor + count, 1.0f);
  for (int a = 0; a < job.axes; a++) {
    if (a == without) continue;
    const float *above = w.above.data() + a * job.tile;
    if ((corner >> (job.axes - 1 - a)) & 1) {
      for (int i = 0; i < count; i++) factor[i] *= above[i];
    } else {
      for (int i = 0; i < count; i++) factor[i] *= 1.0f - above[i];
    }
  }
}

void gather(const Job &job, Worker &w, const Level &level, const Piece &piece) {
  cells(job, w, level, piece.row, piece.x, piece.count);
  float *z = w.tile.get() + level.first * job.stride + piece.at;
  for (int f = 0; f < level.features; f++) std::fill_n(z + f * job.stride, piece.width, 0.0f);
  const int32_t *place = w.corner.data();
  const float *factor = w.factor.data();
  for (int corner = 0; corner < 1 << job.axes; corner++) {
    places(job, w, level, corner, piece.count);
    shares(job, w, corner, piece.count, -1);
    for (int f = 0; f < level.features; f++) {
      const float *table = level.table + f * level.size;
      float *to = z + f * job.stride;
      for (int i = 0; i < piece.count; i++) to[i] += factor[i] * table[place[i]];
    }
  }
}

// Keep the gradients by a level's features for the second phase.
void keep(Job &job, Worker &w, const Level &level, const Piece &piece) {
  const float *dz = w.tile.get() + level.first * job.stride + piece.at;
  int64_t at = (piece.row - job.slab.row0) * job.slab.width() + piece.x - job.slab.x0;
  for (int f = 0; f < level.features; f++)
    std::memcpy(job.kept.get() + (level.kept + f) * job.slab.points() + at, dz + f * job.stride,
                piece.count * sizeof(float));
}

// Gradient by the coordinates of scattered points, of one level.
void move_points(const Job &job, Worker &w, const Level &level, const Piece &piece) {
  cells(job, w, level, piece.row, piece.x, piece.count);
  const float *dz = w.tile.get() + level.first * job.stride + piece.at;
  const int32_t *place = w.corner.data();
  const float *factor = w.factor.data();
  float *dots = w.dots.data();
  for (int corner = 0; corner < 1 << job.axes; corner++) {
    places(job, w, level, corner, piece.count);
    std::fill(dots, dots + piece.count, 0.0f);
    for (int f = 0; f < level.features; f++) {
      const float *table = level.table + f * level.size;
      for (int i = 0; i < piece.count; i++) dots[i] += dz[f * job.stride + i] * table[place[i]];
    }
    for (int a = 0; a < job.axes; a++) {
      shares(job, w, corner, piece.count, a);
      float half = 0.5f * static_cast<float>(level.nodes[a]);
      if (((corner >> (job.axes - 1 - a)) & 1) == 0) half = -half;
      const float *inside = w.inside.data() + a * job.tile;
      float *to = w.moved.data() + a * job.tile + piece.at;
      for (int i = 0; i < piece.count; i++) to[i] += half * inside[i] * factor[i] * dots[i];
    }
  }
}

// The second phase: one thread's levels, features or nodes.
void scatter(Job &job, Worker &w, const Level &level, int f0, int f1, int64_t n0, int64_t n1,
             bool fresh) {
  if (fresh)
    for (int f = f0; f < f1; f++)
      std::memset(level.grad + f * level.size + n0, 0, (n1 - n0) * sizeof(float));
  const Box &slab = job.slab;
  bool whole = n1 - n0 == level.size;
  const int32_t *place = w.corner.data();
  const float *factor = w.factor.data();
  for (int64_t row = slab.row0; row < slab.row1; row++) {
    for (int64_t x = slab.x0; x < slab.x1; x += job.tile) {
      int points = static_cast<int>(std::min<int64_t>(job.tile, slab.x1 - x));
      int64_t at = (row - slab.row0) * slab.width() + x - slab.x0;
      cells(job, w, level, row, x, points);
      for (int corner = 0; corner < 1 << job.axes; corner++) {
        places(job, w, level, corner, points);
        shares(job, w, corner, points, -1);
        for (int f = f0; f < f1; f++) {
          const float *dz = job.kept.get() + (level.kept + f) * slab.points() + at;
          float *grad = level.grad + f * level.size;
          if (whole) {
            for (int i = 0; i < points; i++) grad[place[i]] += factor[i] * dz[i];
          } else {
            for (int i = 0; i < points; i++)
              if (place[i] >= n0 && place[i] < n1) grad[place[i]] += factor[i] * dz[i];
          }
        }
      }
    }
  }
}

void scatter_share(Job &job, Worker &w, int thread, int threads, bool fresh) {
  int64_t tasks = job.kept_rows;  // features of all levels
  // as many parts of each feature's nodes as it takes to give every thread something
  int64_t parts = tasks >= threads ? 1 : ceil_div(threads, tasks);
  int64_t from = tasks * parts * thread / threads, to = tasks * parts * (thread + 1) / threads;
  for (const Level &level : job.levels) {
    if (level.by_rows) continue;
    for (int64_t part = 0; part < parts; part++) {
      // features of this level whose part is in this thread's range: they come one after another
      int f0 = level.features, f1 = 0;
      for (int f = 0; f < level.features; f++) {
        int64_t task = (level.kept + f) + part * tasks;
        if (task < from || task >= to) continue;
        f0 = std::min(f0, f);
        f1 = f + 1;
      }
      if (f0 < f1)
        scatter(job, w, level, f0, f1, level.size * part / parts, level.size * (part + 1) / parts,
                fresh);
    }
  }
}

// ---- tiles ----

// A tile's values, which are its first rows after the features.
float *forward_maps(const Job &job, Worker &w, int64_t points) {
  float *tile = w.tile.get();
  const float *x = tile;
  float *values = tile + job.maps[0].at * job.stride;
  for (size_t m = 0; m < job.maps.size(); m++) {
    const Map &map = job.maps[m];
    bool first = m == 0, last = m + 1 == job.maps.size();
    Product g{};
    g.a = map.entries.data();
    g.row = map.in + 1;
    g.column = 1;
    g.depth = map.in;
    g.x = x;
    g.stride = job.stride;
    g.bias = true;
    g.add = last && !first;
    g.relu = first ? job.channels : (last ? map.out : 0);
    g.out = last ? values : tile + map.at * job.stride;
    product(g, map.out, points);
    x = g.out + (first ? job.channels * job.stride : 0);
  }
  return values;
}

// From gradients by values, which are in the place of the values, to those by features, in theirs.
void backward_maps(const Job &job, Worker &w, int64_t points) {
  float *tile = w.tile.get(), *lanes = w.lanes.get();
  const float *values = tile + job.maps[0].at * job.stride;
  std::vector<float *> room(job.maps.size());
  for (size_t m = 0; m < job.maps.size(); m++) {
    const Map &map = job.maps[m];
    int64_t entries = static_cast<int64_t>(map.out) * (map.in + 1);
    bool fits = entries * LANES <= LANE_SUMS;
    room[m] = fits ? lanes : nullptr;
    if (fits) lanes += entries * LANES;
  }
  for (size_t m = job.maps.size(); m-- > 0;) {
    const Map &map = job.maps[m];
    bool first = m == 0, last = m + 1 == job.maps.size();
    const float *du = last && !first ? values : tile + map.at * job.stride;
    // what went in: features, or what the hidden layer before gave
    float *x = tile;
    if (m == 1) x = tile + (job.maps[0].at + job.channels) * job.stride;
    if (m > 1) x = tile + job.maps[m - 1].at * job.stride;
    Sums s{du, x, job.stride, points, map.in + 1, room[m], w.totals[m].data()};
    outer_sums(s, map.out);
    Product g{};
    g.a = map.entries.data();
    g.row = 1;
    g.column = map.in + 1;
    g.depth = map.out;
    g.x = du;
    g.out = x;
    g.stride = job.stride;
    g.relu = map.in;
    g.mask = !first;
    product(g, map.in, points);
  }
}

void flush(const Job &job, Worker &w) {
  float *lanes = w.lanes.get();
  for (size_t m = 0; m < job.maps.size(); m++) {
    int64_t entries = static_cast<int64_t>(job.maps[m].out) * (job.maps[m].in + 1);
    if (entries * LANES > LANE_SUMS) continue;
    for (int64_t e = 0; e < entries; e++, lanes += LANES)
      w.totals[m][e] += sum(load(lanes));
  }
  w.lanes.zero();
  w.since_flush = 0;
}

// Gradients by values in the place of the values: of the squared error, or as given.
template <int CHANNELS>
void turn_values(const Job &job, Worker &w, const Piece &piece, float *values) {
  int channels = CHANNELS ? CHANNELS : job.channels;
  int64_t at = (piece.row * job.points + piece.x) * channels;
  for (int c = 0; c < channels; c++) {
    float *v = values + c * job.stride + piece.at;
    if (job.values)
      for (int i = 0; i < piece.count; i++) job.values[at + i * channels + c] = v[i];
    if (job.upstream) {
      for (int i = 0; i < piece.count; i++) v[i] = job.upstream[at + i * channels + c];
    } else if (job.targets) {
      for (int i = 0; i < piece.count; i++) v[i] -= job.targets[at + i * channels + c];
    }
    for (int i = piece.count; i < piece.width; i++) v[i] = 0;
    if (!job.targets) continue;
    vec squares = {};
    for (int i = 0; i < piece.width; i += LANES) {
      vec error = load(v + i);
      squares += error * error;
      store(v + i, error + error);
    }
    w.loss += static_cast<double>(sum(squares));
  }
}

void do_tile(Job &job, Worker &w, int64_t points) {
  for (const Piece &piece : w.pieces) {
    for (size_t l = 0; l < job.levels.size(); l++) {
      if (job.levels[l].by_rows)
        interpolate_rows(job, w, static_cast<int>(l), piece);
      else
        gather(job, w, job.levels[l], piece);
    }
  }
  float *values = forward_maps(job, w, points);
  for (const Piece &piece : w.pieces) {
    switch (job.channels) {
      case 1: turn_values<1>(job, w, piece, values); break;
      case 3: turn_values<3>(job, w, piece, values); break;
      default: turn_values<0>(job, w, piece, values); break;
    }
  }
  if (!job.gradients) return;
  backward_maps(job, w, points);
  if (++w.since_flush == FLUSH) flush(job, w);
  if (job.grad_coords) std::fill(w.moved.begin(), w.moved.end(), 0.0f);
  for (const Piece &piece : w.pieces) {
    for (size_t l = 0; l < job.levels.size(); l++) {
      if (job.levels[l].by_rows) {
        spread_rows(job, w, static_cast<int>(l), piece);
        continue;
      }
      keep(job, w, job.levels[l], piece);
      if (job.grad_coords) move_points(job, w, job.levels[l], piece);
    }
    if (!job.grad_coords) continue;
    for (int i = 0; i < piece.count; i++)
      for (int a = 0; a < job.axes; a++)
        job.grad_coords[(piece.x + i) * job.axes + a] = w.moved[a * job.tile + piece.at + i];
  }
}

void prepare(const Job &job, Worker &w) {
  size_t levels = job.levels.size();
  w.tile.resize(job.high * job.stride);
  w.tile.zero();
  // the ones that biases are multiplied by
  std::fill_n(w.tile.get() + job.features * job.stride, job.stride, 1.0f);
  int64_t lanes = 0;
  for (size_t m = 0; m < job.maps.size(); m++) {
    const Map &map = job.maps[m];
    if (m == 0 || m + 1 < job.maps.size())
      std::fill_n(w.tile.get() + (map.at + map.out) * job.stride, job.stride, 1.0f);
    int64_t entries = static_cast<int64_t>(map.out) * (map.in + 1);
    if (job.gradients) w.totals.emplace_back(entries, 0.0);
    if (entries * LANES <= LANE_SUMS) lanes += entries * LANES;
  }
  if (job.gradients) {
    w.lanes.resize(lanes);
    w.lanes.zero();
  }
  w.low.resize(levels * job.span);
  w.high.resize(levels * job.span);
  w.start.resize(levels * job.span / GROUP);
  w.weight.resize(levels * job.span);
  w.values.resize(levels);
  w.sums.resize(levels);
  w.adjoints.resize(levels);
  bool points = false;
  for (size_t l = 0; l < levels; l++) {
    const Level &level = job.levels[l];
    points = points || !level.by_rows;
    if (!level.by_rows) continue;
    for (Rows *rows : {&w.values[l], &w.sums[l]}) {
      if (rows == &w.sums[l] && !job.gradients) continue;
      rows->id.assign(level.corners, -1);
      rows->slot.assign(level.corners, 0);
      rows->weight.assign(level.corners, 0.0f);
      rows->data.resize(level.corners * level.features * job.span);
    }
  }
  if (!points) return;
  int64_t each = static_cast<int64_t>(job.axes) * job.tile;
  w.below.resize(each);
  w.above.resize(each);
  w.inside.resize(each);
  w.moved.resize(each);
  w.factor.resize(job.tile);
  w.dots.resize(job.tile);
  w.corner.resize(job.tile);
}

void do_share(Job &job, Worker &w, bool fresh) {
  if (w.tile.size() == 0) prepare(job, w);
  if (job.gradients) {
    for (size_t l = 0; l < job.levels.size(); l++) {
      const Level &level = job.levels[l];
      if (!level.by_rows) continue;
      Worker::Part &part = w.parts[l];
      int64_t firsts = job.axes > 1 ? level.nodes[0] : 1, per_first = level.size / firsts;
      for (int f = 0; fresh && f < level.features && part.own0 < part.own1; f++)
        std::memset(level.grad + f * level.size + part.own0 * per_first, 0,
                    sizeof(float) * (part.own1 - part.own0) * per_first);
      part.grad.assign((part.shared1 - part.shared0) * per_first * level.features, 0.0f);
    }
  }
  for (int64_t x0 = w.share.x0; x0 < w.share.x1; x0 += job.span) {
    int64_t count = std::min(job.span, w.share.x1 - x0);
    begin_span(job, w, x0, count);
    int64_t groups = ceil_div(count, GROUP);
    int used = 0;
    w.pieces.clear();
    for (int64_t row = w.share.row0; row < w.share.row1; row++) {
      for (int64_t g = 0; g < groups;) {
        int64_t taken = std::min<int64_t>(groups - g, (job.tile - used) / GROUP);
        int width = static_cast<int>(taken * GROUP);
        int64_t left = count - g * GROUP;
        w.pieces.push_back({row, x0 + g * GROUP, used,
                            static_cast<int>(std::min<int64_t>(left, width)), width});
        used += width;
        g += taken;
        if (used < job.tile) continue;
        do_tile(job, w, used);
        w.pieces.clear();
        used = 0;
      }
    }
    if (used) do_tile(job, w, used);
    end_span(job, w);
  }
}

// ---- the whole ----

// Cut a box into shares, and say who owns which rows of the tables.
void share_out(const Job &job, const Box &box, std::vector<Worker> &workers) {
  int64_t count = static_cast<int64_t>(workers.size());
  bool by_rows = box.rows() >= 8 * count || box.rows() >= box.width();
  int64_t groups = ceil_div(box.width(), GROUP);
  for (int64_t t = 0; t < count; t++) {
    Box &share = workers[t].share;
    share = box;
    if (by_rows) {
      share.row0 = box.row0 + box.rows() * t / count;
      share.row1 = box.row0 + box.rows() * (t + 1) / count;
    } else {
      share.x0 = box.x0 + groups * t / count * GROUP;
      share.x1 = std::min(box.x1, box.x0 + groups * (t + 1) / count * GROUP);
    }
    workers[t].parts.resize(job.levels.size());
  }
  if (!job.gradients) return;
  int64_t inner = 1;
  for (int a = 1; a < job.axes - 1; a++) inner *= job.length[a];
  for (size_t l = 0; l < job.levels.size(); l++) {
    const Level &level = job.levels[l];
    if (!level.by_rows) continue;
    int64_t firsts = job.axes > 1 ? level.nodes[0] : 1, owned = 0;
    for (int64_t t = 0; t < count; t++) {
      Worker::Part &part = workers[t].parts[l];
      const Box &share = workers[t].share;
      int64_t low = firsts, high = 0;  // nodes that this share touches
      if (share.points() > 0 && job.axes == 1) low = 0, high = 1;
      if (share.points() > 0 && job.axes > 1) {
        for (int64_t i = share.row0 / inner; i <= (share.row1 - 1) / inner; i++) {
          low = std::min<int64_t>(low, level.below[0][i]);
          high = std::max<int64_t>(high, std::min<int64_t>(level.below[0][i] + 2, firsts));
        }
      }
      part.shared0 = std::min(low, owned);
      part.shared1 = std::min(high, owned);
      part.own0 = owned;
      owned = t + 1 == count ? firsts : std::max(owned, high);
      part.own1 = owned;
    }
  }
}

// Add what threads have kept apart, in their order.
void join(const Job &job, std::vector<Worker> &workers) {
  for (Worker &w : workers) {
    for (size_t l = 0; l < job.levels.size() && job.gradients; l++) {
      const Level &level = job.levels[l];
      const Worker::Part &part = w.parts[l];
      if (!level.by_rows || part.grad.empty()) continue;
      int64_t per_first = level.size / (job.axes > 1 ? level.nodes[0] : 1);
      int64_t each = (part.shared1 - part.shared0) * per_first;
      for (int f = 0; f < level.features; f++) {
        float *to = level.grad + f * level.size + part.shared0 * per_first;
        const float *from = part.grad.data() + f * each;
        for (int64_t i = 0; i < each; i++) to[i] += from[i];
      }
    }
  }
}

void unpack(const Map &map, const std::vector<double> &total, int row, int rows, float *weight,
            float *bias) {
  for (int r = 0; r < rows; r++) {
    const double *from = total.data() + static_cast<int64_t>(row + r) * (map.in + 1);
    float *to = weight + static_cast<int64_t>(r) * map.in;
    for (int k = 0; k < map.in; k++) to[k] = static_cast<float>(from[k]);
    if (bias) bias[r] = static_cast<float>(from[map.in]);
  }
}

void check(int status) {
  if (status == NO_MEMORY) throw std::bad_alloc();
  if (status != DONE) throw std::exception();
}

// Cells of a lattice's coordinates, each thread a part of every axis.
void find_axes(Job &job, int thread) {
  for (Level &level : job.levels) {
    for (int a = 0; a < job.axes; a++) {
      int64_t n = job.length[a], from = n * thread / job.threads;
      find_cells(job.axis[a] + from, 1, n * (thread + 1) / job.threads - from, level.nodes[a],
                 level.below[a].data() + from, level.weight[a].data() + from, nullptr);
    }
  }
}

// In other threads only where there is much of it.
void find_lattice(Job &job) {
  int64_t all = 0;
  for (Level &level : job.levels) {
    for (int a = 0; a < job.axes; a++) {
      level.below[a].resize(job.length[a]);
      level.weight[a].resize(job.length[a]);
      all += job.length[a];
    }
  }
  if (all > 1 << 16) {
    check(in_threads(job.threads, [&](int t) { find_axes(job, t); }));
  } else {
    for (int t = 0; t < job.threads; t++) find_axes(job, t);
  }
}

// Sizes of tiles and spans, and how many threads the work is worth.
void plan_work(Job &job) {
  int64_t high = job.features + 1;
  double each = job.features * (job.gradients ? 8.0 : 4.0);
  bool small = true;
  for (size_t m = 0; m < job.maps.size(); m++) {
    Map &map = job.maps[m];
    map.at = high;
    // the last map adds to the values that the first has begun
    bool adds = m > 0 && m + 1 == job.maps.size();
    if (adds) map.at = job.maps[0].at;
    if (!adds) high += map.out + 1;
    double entries = static_cast<double>(map.out) * (map.in + 1);
    each += entries * (job.gradients ? 3 : 1);
    small = small && entries * LANES <= LANE_SUMS;
  }
  job.high = high;
  // sums that are made lane by lane must be brought together after each tile if there is no room to
  // keep them, so tiles are as long as a core's cache allows; else as its first-level cache does
  job.tile = 256;
  while (!small && job.tile < 512 && high * 2 * job.tile * 4 <= 1 << 20) job.tile *= 2;
  job.stride = job.tile + GROUP;  // no power of two: rows would fall on the same sets of a cache

  double gathered = 0;
  int64_t per_point = 0;  // floats of the rows that are kept, per point of a span
  for (const Level &level : job.levels) {
    if (level.by_rows)
      per_point += static_cast<int64_t>(level.corners) * level.features * (job.gradients ? 2 : 1);
    else
      gathered += (1 << job.axes) * (job.axes + level.features) * (job.gradients ? 3.0 : 1.0);
  }
  int64_t most = SPAN_BYTES / std::max<int64_t>(1, per_point * 4) / job.tile * job.tile;
  job.span = std::max<int64_t>(most, job.tile);
  job.span = std::min<int64_t>(job.span, std::max<int64_t>(round_up(job.points, GROUP), GROUP));
  double work = (each + gathered) * static_cast<double>(job.rows) * static_cast<double>(job.points);
  job.threads = std::max(1, static_cast<int>(std::min<double>(job.threads, work / THREAD_WORK)));
}

// Read what Python has written; see `inr_grid`.
struct Reader {
  const int64_t *numbers;
  void *const *pointers;
  int64_t number() { return *numbers++; }
  int whole() { return static_cast<int>(*numbers++); }
  float *floats() { return static_cast<float *>(*pointers++); }
};

void read_level(Level &level, const Job &job, Reader &from) {
  int last = job.axes - 1;
  level.features = from.whole();
  int64_t hashed = from.number();
  level.hashed = hashed > 0;
  level.by_rows = job.lattice && !level.hashed;
  for (int a = 0; a < job.axes; a++) level.nodes[a] = from.number();
  level.size = 1;
  for (int a = last; a >= 0; a--) {
    level.step[a] = level.size;
    level.size *= level.nodes[a];
  }
  if (level.hashed) level.size = hashed;
  level.corners = 1;
  level.outers = 0;
  level.offset.assign(1, 0);
  for (int a = 0; a < last && level.by_rows; a++) {
    if (level.nodes[a] == 1) continue;
    level.outer[level.outers++] = a;
    for (int c = 0; c < level.corners; c++)
      level.offset.push_back(level.offset[c] + level.step[a] / level.nodes[last]);
    level.corners *= 2;
  }
  level.table = from.floats();
}

struct Given {
  const float *weight, *bias;
};

void read(Job &job, std::vector<Given> &given, Reader &from) {
  job.axes = from.whole();
  job.channels = from.whole();
  job.levels.resize(from.number());
  std::vector<int> widths(from.number());
  job.threads = from.whole();
  job.lattice = from.number() != 0;
  job.gradients = from.number() != 0;
  for (int &width : widths) width = from.whole();
  for (Level &level : job.levels) {
    read_level(level, job, from);
    level.first = job.features;
    job.features += level.features;
    level.kept = job.kept_rows;
    if (!level.by_rows) job.kept_rows += level.features;
  }
  job.rows = 1;
  for (int a = 0; a < job.axes && job.lattice; a++) job.length[a] = from.number();
  for (int a = 0; a < job.axes - 1 && job.lattice; a++) job.rows *= job.length[a];
  job.points = job.lattice ? job.length[job.axes - 1] : from.number();

  job.maps.resize(widths.size() + 1);
  for (size_t m = 0; m < job.maps.size(); m++) {
    bool first = m == 0, last = m == widths.size();
    job.maps[m].in = first ? job.features : widths[m - 1];
    job.maps[m].out = (first || last ? job.channels : 0) + (last ? 0 : widths[m]);
  }
  given.resize(widths.empty() ? 1 : widths.size() + 2);
  for (Given &each : given) {
    each.weight = from.floats();
    each.bias = from.floats();
  }
  for (size_t m = 0; m < job.maps.size(); m++) {
    Map &map = job.maps[m];
    map.entries.resize(static_cast<int64_t>(map.out) * (map.in + 1));
    int linear = m == 0 ? job.channels : 0;
    if (m == 0) pack(map, 0, linear, given[0].weight, given[0].bias);
    int rest = map.out - linear;
    if (rest) pack(map, linear, rest, given[m + 1].weight, given[m + 1].bias);
  }

  if (job.lattice)
    for (int a = 0; a < job.axes; a++) job.axis[a] = from.floats();
  else
    job.coords = from.floats();
  job.targets = from.floats();
  job.upstream = from.floats();
  job.values = from.floats();
  job.grad_coords = from.floats();
}

void write_maps(const Job &job, std::vector<Worker> &workers, Reader &to) {
  for (size_t m = 0; m < job.maps.size(); m++) {
    const Map &map = job.maps[m];
    std::vector<double> total(map.entries.size(), 0.0);
    for (const Worker &w : workers)
      for (size_t e = 0; e < total.size() && !w.totals.empty(); e++) total[e] += w.totals[m][e];
    int linear = m == 0 ? job.channels : 0;
    for (int part = 0; part < 2; part++) {
      int row = part ? linear : 0, rows = part ? map.out - linear : linear;
      if (rows == 0) continue;
      float *weight = to.floats(), *bias = to.floats();
      unpack(map, total, row, rows, weight, bias);
    }
  }
}

// Parts of the whole that are done one after another, so that memory is bounded; a single one where
// nothing is kept for a second phase.
std::vector<Box> slabs(const Job &job) {
  Box all{0, job.rows, 0, job.points};
  if (!job.gradients || job.kept_rows == 0) return {all};
  int64_t rows = std::max<int64_t>(1, SLAB / std::max<int64_t>(1, job.points));
  std::vector<Box> boxes;
  for (int64_t row = 0; row < job.rows; row += rows)
    for (int64_t x = 0; x < job.points; x += SLAB)
      boxes.push_back({row, std::min(row + rows, job.rows), x, std::min(x + SLAB, job.points)});
  return boxes;
}

}  // namespace

// One pass over all points. The numbers: axes, channels, levels, hidden layers, threads, whether the
// points are a lattice, whether gradients are wanted; widths of the hidden layers; of each level
// features, size of the table if it is hashed (else 0), nodes per axis; lengths of the lattice's
// axes, or the number of points. The pointers: tables; weight and bias of the linear map, then of
// each layer; coordinates by axis, or all; targets; gradient by values; values; gradient by
// coordinates; gradients by tables, then by weights and biases. What is not wanted, or not there, is
// null. `loss` gets the sum of squared errors, which is 0 without targets. Returns a `Status`.
extern "C" int inr_grid(const int64_t *numbers, void *const *pointers, double *loss) {
  return guarded([&] {
    Job job{};
    std::vector<Given> given;
    Reader reader{numbers, pointers};
    read(job, given, reader);
    for (Level &level : job.levels) level.grad = job.gradients ? reader.floats() : nullptr;
    plan_work(job);
    if (job.lattice) find_lattice(job);

    std::vector<Worker> workers(job.threads);
    bool fresh = true;
    for (const Box &box : slabs(job)) {
      job.slab = box;
      if (job.gradients && job.kept_rows && fresh) job.kept.resize(job.kept_rows * box.points());
      share_out(job, box, workers);
      check(in_threads(job.threads, [&](int t) { do_share(job, workers[t], fresh); }));
      if (job.gradients && job.kept_rows)
        check(in_threads(job.threads,
                         [&](int t) { scatter_share(job, workers[t], t, job.threads, fresh); }));
      join(job, workers);
      fresh = false;
    }
    *loss = 0;
    for (Worker &w : workers) *loss += w.loss;
    if (!job.gradients) return;
    for (Worker &w : workers)
      if (w.since_flush) flush(job, w);
    for (Level &level : job.levels)  // without points there was no slab
      if (fresh) std::memset(level.grad, 0, level.size * level.features * sizeof(float));
    write_maps(job, workers, reader);
  });
}
