// An MLP forward, and forward and back, with nothing of the size of the whole batch but its ends.
//
// A tile of points goes through all layers and back while its activations are in a core's cache.
// Tiles are [point][unit], units are the lanes of vectors, and all three products of training read
// and write whole vectors of units:
//
//   forward           z[p][j..]  += x[p][k]  * W^T[k][j..]    a row of W^T, one number of x
//   to the inputs     dx[p][k..] += dz[p][j] * W[j][k..]      a row of W, one number of dz
//   to the weights    dW[j][k..] += dz[p][j] * x[p][k..]      a row of x, one number of dz
//
// A block of rows x vectors of the result stays in registers for the whole sum. The forward pass
// keeps of each layer its values and their derivative by W x + b, so that the way back has no more
// sine to take. The tiles are dealt out in shares, several for each thread, so that one whose core
// is wanted by others takes fewer. A share has a gradient of its own, and they are added up in the
// shares' order at the end: the same number of threads gives the same bits, whoever did what.
#include "common.h"

#include <atomic>

namespace {

using namespace inr;

// AVX-512 and NEON have 32 registers, AVX and SSE 16
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDE = 4;   // vectors of a block
#else
constexpr int WIDE = 2;
#endif
constexpr int ROWS = 6;   // rows of a block WIDE vectors wide
constexpr int STEP = 12;  // tiles have a multiple of these, which is one of any block's rows
constexpr int FEW = 4;    // so many outputs are dot products, with inputs as lanes

constexpr int64_t LEAST_TILE = 96, MOST_TILE = 132;
constexpr int64_t TILE_BYTES = 1 << 20;  // of a core's second-level cache
constexpr int64_t MOST_SHARES = 8;         // of a thread
constexpr int64_t SHARE_BYTES = 4 << 20;   // of the gradients of all shares, about
constexpr double THREAD_WORTH = 8e6;     // multiplications, about 100 us: repay starting a thread

constexpr int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// ---- products ----

enum class End { SCALE, TIMES };  // c = scale * sum, or c = c * sum

template <int R, int V, End END>
INR_INLINE void block(const float *a, int64_t lda, const float *b, int64_t depth, float *c,
                      int64_t ldc, const float *bias, float scale) {
  vec sums[R][V];
#pragma GCC unroll 16
  for (int v = 0; v < V; v++) {
    vec first = bias ? load(bias + v * LANES) : vec{};
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) sums[r][v] = first;
  }
  for (int64_t k = 0; k < depth; k++) {
    vec row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) row[v] = load(b + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      vec x = splat(a[r * lda + k]);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) sums[r][v] += x * row[v];
    }
    b += V * LANES;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      float *at = c + r * ldc + v * LANES;
      store(at, END == End::TIMES ? sums[r][v] * load(at) : sums[r][v] * scale);
    }
}

// rows of a block that is so many vectors wide: enough sums to hide the latency of their additions
constexpr int rows_of(int vectors) { return vectors * 2 > WIDE ? ROWS : STEP; }

template <int V, End END, class After>
__attribute__((noinline)) void panel(const float *a, int64_t lda, int64_t rows, const float *b,
                                     int64_t depth, float *c, int64_t ldc, const float *bias,
                                     float scale, After after) {
  constexpr int R = rows_of(V);
  for (int64_t r = 0; r < rows; r += R) {
    block<R, V, END>(a + r * lda, lda, b, depth, c + r * ldc, ldc, bias, scale);
    after(c + r * ldc, R, V);
  }
}

// c = scale (a b + bias), or c times a b. `b` is packed (see `pack`); after each block, after(its
// first number, rows, vectors). Rows are a multiple of STEP, columns whole vectors.
template <End END, class After>
void multiply(const float *a, int64_t lda, int64_t rows, const float *b, int64_t depth,
              int64_t vectors, float *c, int64_t ldc, const float *bias, float scale,
              After after) {
  for (int64_t v = 0; v < vectors; v += WIDE) {
    const int64_t at = v * LANES;
    const float *first = bias ? bias + at : nullptr;
    auto go = [&](auto width) {
      panel<decltype(width)::value, END>(a, lda, rows, b + at * depth, depth, c + at, ldc, first,
                                         scale, [&](float *from, int r, int w) {
                                           after(from, from - c, r, w);
                                         });
    };
    const int64_t left = std::min<int64_t>(WIDE, vectors - v);
    if (left == 1) go(std::integral_constant<int, 1>());
    else if (left == 2) go(std::integral_constant<int, 2>());
#if defined(__AVX512F__) || defined(__aarch64__)
    else if (left == 3) go(std::integral_constant<int, 3>());
    else go(std::integral_constant<int, 4>());
#endif
  }
}

// c[r][m] = scale (a[r] . b[m] + bias[m]) for few m
template <int M>
void dots_of(const float *a, int64_t lda, int64_t rows, const float *b, int64_t ldb,
             int64_t vectors, float *c, int64_t ldc, const float *bias, float scale) {
  constexpr int R = 4;
  for (int64_t r = 0; r < rows; r += R) {
    vec sums[R][M] = {};
    for (int64_t v = 0; v < vectors; v++) {
      vec other[M];
#pragma GCC unroll 16
      for (int m = 0; m < M; m++) other[m] = load(b + m * ldb + v * LANES);
#pragma GCC unroll 16
      for (int i = 0; i < R; i++) {
        vec x = load(a + (r + i) * lda + v * LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) sums[i][m] += x * other[m];
      }
    }
    for (int i = 0; i < R; i++)
      for (int m = 0; m < M; m++)
        c[(r + i) * ldc + m] = scale * (sum(sums[i][m]) + (bias ? bias[m] : 0.0f));
  }
}

void dots(const float *a, int64_t lda, int64_t rows, const float *b, int64_t ldb, int64_t vectors,
          int64_t count, float *c, int64_t ldc, const float *bias, float scale) {
  switch (count) {
    case 1: return dots_of<1>(a, lda, rows, b, ldb, vectors, c, ldc, bias, scale);
    case 2: return dots_of<2>(a, lda, rows, b, ldb, vectors, c, ldc, bias, scale);
    case 3: return dots_of<3>(a, lda, rows, b, ldb, vectors, c, ldc, bias, scale);
    default: return dots_of<4>(a, lda, rows, b, ldb, vectors, c, ldc, bias, scale);
  }
}

template <int R, int V>
INR_INLINE void outer_block(const float *a, int64_t lda, const float *b, int64_t ldb,
                            int64_t points, float *c, int64_t ldc) {
  vec sums[R][V] = {};
  for (int64_t p = 0; p < points; p++) {
    vec row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) row[v] = load(b + v * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      vec x = splat(a[r]);
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) sums[r][v] += x * row[v];
    }
    a += lda;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) {
      float *at = c + r * ldc + v * LANES;
      store(at, load(at) + sums[r][v]);
    }
}

constexpr int outer_rows(int64_t rows) { return rows <= 3 ? 3 : ROWS; }

template <int R, int V>
__attribute__((noinline)) void outer_panel(const float *a, int64_t lda, int64_t rows,
                                           const float *b, int64_t ldb, int64_t points, float *c,
                                           int64_t ldc) {
  for (int64_t r = 0; r < rows; r += R)
    outer_block<R, V>(a + r, lda, b, ldb, points, c + r * ldc, ldc);
}

// c[r][..] += sum over points of a[p][r] b[p][..]. It reads and writes up to R - 1 rows more than
// there are, which is garbage that nobody looks at.
template <int R>
void outer_of(const float *a, int64_t lda, int64_t rows, const float *b, int64_t ldb,
              int64_t vectors, int64_t points, float *c, int64_t ldc) {
  for (int64_t v = 0; v < vectors; v += WIDE) {
    const int64_t at = v * LANES;
    auto go = [&](auto width) {
      outer_panel<R, decltype(width)::value>(a, lda, rows, b + at, ldb, points, c + at, ldc);
    };
    const int64_t left = std::min<int64_t>(WIDE, vectors - v);
    if (left == 1) go(std::integral_constant<int, 1>());
    else if (left == 2) go(std::integral_constant<int, 2>());
#if defined(__AVX512F__) || defined(__aarch64__)
    else if (left == 3) go(std::integral_constant<int, 3>());
    else go(std::integral_constant<int, 4>());
#endif
  }
}

void outer(const float *a, int64_t lda, int64_t rows, const float *b, int64_t ldb,
           int64_t vectors, int64_t points, float *c, int64_t ldc) {
  if (outer_rows(rows) == 3) outer_of<3>(a, lda, rows, b, ldb, vectors, points, c, ldc);
  else outer_of<ROWS>(a, lda, rows, b, ldb, vectors, points, c, ldc);
}

// c[..] += sum over points of a[p][..]
void add_rows(const float *a, int64_t lda, int64_t vectors, int64_t points, float *c) {
  for (int64_t v = 0; v < vectors; v++) {
    vec some[4] = {};
    int64_t p = 0;
    for (; p + 4 <= points; p += 4)
      for (int i = 0; i < 4; i++) some[i] += load(a + (p + i) * lda + v * LANES);
    for (; p < points; p++) some[0] += load(a + p * lda + v * LANES);
    store(c + v * LANES, load(c + v * LANES) + ((some[0] + some[1]) + (some[2] + some[3])));
  }
}

// ---- activations: values h of u = omega z, and their derivative d by z ----

enum Name : int64_t {  // the order is that of NAMES in cpp_mlp.py
  LINEAR, RELU, GELU, SINE, FINER, FINER_OFFICIAL, GAUSS, WIRE, SPDER_SQRT, SPDER_ARCTAN, SPDER_LOG
};

INR_INLINE vec sign(vec u) {
  return select(u == 0.0f, vec{}, from_bits((bits(u) & isplat(INT32_MIN)) | isplat(0x3f800000)));
}

struct Linear {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    h = u;
    d = splat(omega);
  }
};

struct Relu {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    ivec off = u <= 0.0f;  // false for NaN, which passes
    h = select(off, vec{}, u);
    d = select(off, vec{}, splat(omega));
  }
};

struct Gelu {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec share = 0.5f * verf(u * 0.707106781f) + 0.5f;
    h = u * share;
    d = omega * (share + u * (0.398942280f * vexp(-0.5f * u * u)));
  }
};

struct Sine {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    sincos(u, h, d);
    d = omega * d;
  }
};

struct Finer {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec a = vabs(u) / omega;
    sincos(u * (a + 1.0f), h, d);
    d = omega * d * (a + a + 1.0f);
  }
};

struct FinerOfficial {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec factor = vabs(u) / omega + 1.0f;
    sincos(u * factor, h, d);
    d = omega * d * factor;
  }
};

struct Gauss {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    h = vexp(-(u * u));
    d = -2.0f * omega * u * h;
  }
};

struct SpderSqrt {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec s, c, a = vabs(u);
    sincos(u, s, c);
    ivec below = a < 1e-20f;  // FLOOR of reference.py
    vec root = vsqrt(select(below, splat(1e-20f), a));
    h = s * root;
    d = omega * (c * root + select(below, vec{}, s * sign(u) / (root + root)));
  }
};

struct SpderArctan {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec s, c, factor = vatan(u);
    sincos(u, s, c);
    h = s * factor;
    d = omega * (c * factor + s / (u * u + 1.0f));
  }
};

struct SpderLog {
  static INR_INLINE void at(vec u, float omega, vec &h, vec &d) {
    vec s, c, a = vabs(u), factor = vlog1p(a);
    sincos(u, s, c);
    h = s * factor;
    d = omega * (c * factor + s * sign(u) / (a + 1.0f));
  }
};

template <class Function>
void over(float *h, float *d, int64_t ld, int64_t rows, int64_t vectors, float omega) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t at = r * ld + v * LANES;
      vec value, slope;
      Function::at(load(h + at), omega, value, slope);
      store(h + at, value);
      if (d) store(d + at, slope);
    }
}

// values in place of u, and their derivative unless d is null
void activate(int64_t name, float *h, float *d, int64_t ld, int64_t rows, int64_t vectors,
              float omega) {
  switch (name) {
    case LINEAR: return d ? over<Linear>(h, d, ld, rows, vectors, omega) : void();
    case RELU: return over<Relu>(h, d, ld, rows, vectors, omega);
    case GELU: return over<Gelu>(h, d, ld, rows, vectors, omega);
    case SINE: return over<Sine>(h, d, ld, rows, vectors, omega);
    case FINER: return over<Finer>(h, d, ld, rows, vectors, omega);
    case FINER_OFFICIAL: return over<FinerOfficial>(h, d, ld, rows, vectors, omega);
    case GAUSS: return over<Gauss>(h, d, ld, rows, vectors, omega);
    case SPDER_SQRT: return over<SpderSqrt>(h, d, ld, rows, vectors, omega);
    case SPDER_ARCTAN: return over<SpderArctan>(h, d, ld, rows, vectors, omega);
    case SPDER_LOG: return over<SpderLog>(h, d, ld, rows, vectors, omega);
  }
}

// WIRE couples a unit with the one `half` further on: exp(i u - ratio^2 |u|^2) of a complex u.
void wire(const float *u, float *h, int64_t ld, int64_t rows, int64_t half, float ratio) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = r * ld; i < r * ld + half; i += LANES) {
      vec a = load(u + i), b = load(u + i + half), s, c;
      sincos(a, s, c);
      vec modulus = vexp(-(ratio * ratio) * (a * a + b * b) - b);
      store(h + i, modulus * c);
      store(h + i + half, modulus * s);
    }
}

// from the gradient by h to that by z, which replaces u
void wire_back(const float *dh, const float *h, float *u, int64_t ld, int64_t rows, int64_t half,
               float ratio, float omega) {
  const float fall = -2.0f * ratio * ratio;
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = r * ld; i < r * ld + half; i += LANES) {
      vec a = load(u + i), b = load(u + i + half);
      vec real = load(h + i), imag = load(h + i + half);
      vec d_real = load(dh + i), d_imag = load(dh + i + half);
      vec along = d_real * real + d_imag * imag;
      store(u + i, omega * (fall * a * along + (d_imag * real - d_real * imag)));
      store(u + i + half, omega * ((fall * b - 1.0f) * along));
    }
}

// ---- a network's shape ----

// units unit, unit + 1, ... lie at `at`, at + 1, ... of a tile's rows
struct Run {
  int64_t unit, at, count;
};

struct Layer {
  int64_t in, out, name;
  float omega, ratio;
  const float *weight, *bias;       // of the first network; bias may be null
  float *weight_grad, *bias_grad;   // the same; null where not wanted
  std::vector<Run> inputs, outputs;  // where they lie in a tile
  int64_t half;              // of a WIRE layer: where its imaginary parts begin
  int64_t k, n;              // numbers per point before and after, gaps included
  int64_t in_vec, out_vec;   // in whole vectors
  int64_t ld;                // from one point's outputs to the next one's
  bool few_out, few_in;      // dot products
  bool swapped;              // the weights' gradient has inputs as rows
  int64_t grad_ld, grad_at, bias_at;            // in the gradient's buffer
  int64_t forward_at, back_at, packed_bias_at;  // in the packed weights
  bool trained() const { return weight_grad || bias_grad; }
};

// A row is an odd number of vectors, so that a column does not fall on few sets of the cache.
int64_t row(int64_t vectors) { return (vectors | 1) * LANES; }

struct Call {
  std::vector<Layer> layers;
  int64_t networks, points, threads, shares;
  bool common;          // all networks have the same points
  const float *coords;  // (networks or 1, points, in)
  const float *targets, *upstream;  // (networks, points, out), or null
  float *values, *coord_grad;       // the same, and (networks, points, in), or null
  float *loss;
  int64_t x_ld, tile, tiles, lowest, grad_size, packed_size;
  bool back;

  int64_t width() const { return layers.back().out; }

  void prepare() {
    int64_t bytes = 0;
    double work = 0;
    lowest = static_cast<int64_t>(layers.size());
    for (size_t i = 0; i < layers.size(); i++) {
      Layer &l = layers[i];
      if (i) {
        l.inputs = layers[i - 1].outputs;
        l.k = layers[i - 1].n;
      } else {
        l.inputs = {{0, 0, l.in}};
        l.k = l.in;
      }
      if (l.name == WIRE) {  // both halves are whole vectors, with a gap between if need be
        l.half = up(l.out / 2, LANES);
        l.outputs = {{0, 0, l.out / 2}, {l.out / 2, l.half, l.out / 2}};
        l.n = l.half + l.out / 2;
      } else {
        l.outputs = {{0, 0, l.out}};
        l.n = l.out;
      }
      l.in_vec = up(l.k, LANES) / LANES;
      l.out_vec = up(l.n, LANES) / LANES;
      l.ld = row(l.out_vec);
      l.few_out = i + 1 == layers.size() && l.name == LINEAR && l.out <= FEW;
      l.few_in = i == 0 && l.in <= FEW;
      l.swapped = up(l.k, ROWS) * l.out_vec < up(l.n, ROWS) * l.in_vec;
      l.grad_ld = (l.swapped ? l.out_vec : l.in_vec) * LANES;
      l.grad_at = grad_size;
      l.bias_at = l.grad_at + up(l.swapped ? l.k : l.n, ROWS) * l.grad_ld;
      grad_size = l.bias_at + l.out_vec * LANES;
      l.forward_at = packed_size;
      l.packed_bias_at =
          l.forward_at + (l.few_out ? l.out * l.in_vec : l.k * l.out_vec) * LANES;
      l.back_at = l.packed_bias_at + l.out_vec * LANES;
      packed_size = l.back_at + (l.few_in ? l.in * l.out_vec : l.n * l.in_vec) * LANES;
      if (l.trained()) lowest = std::min(lowest, static_cast<int64_t>(i));
      bytes += 8 * l.ld;
      work += static_cast<double>(l.in) * static_cast<double>(l.out);
    }
    if (coord_grad) lowest = 0;
    back = lowest < static_cast<int64_t>(layers.size());
    x_ld = row(layers[0].in_vec);
    work *= static_cast<double>(networks * points) * (back ? 3 : 1);
    const int64_t worth = static_cast<int64_t>(std::min(work / THREAD_WORTH, 1e6)) + 1;
    threads = std::max<int64_t>(1, std::min(threads, worth));
    tile = std::clamp(TILE_BYTES / bytes, LEAST_TILE, MOST_TILE) / STEP * STEP;
    const int64_t share = (networks * points + threads - 1) / threads;
    tile = std::max<int64_t>(STEP, std::min(tile, up(std::min(share, points), STEP)));
    tiles = (points + tile - 1) / tile;
    threads = std::max<int64_t>(1, std::min(threads, networks * tiles));
    const int64_t room = SHARE_BYTES / (static_cast<int64_t>(sizeof(float)) * grad_size + 1);
    shares = threads * std::clamp<int64_t>(back ? room / threads : MOST_SHARES, 1, MOST_SHARES);
    shares = threads == 1 ? 1 : std::min(shares, networks * tiles);
  }
};

// what comes of a share of the tiles
struct Share {
  Floats spill;          // the gradient of a network that a share before this one began
  int64_t spilled = -1;  // which that is
  double loss = 0;
};

// ---- a thread's work ----

class Worker {
 public:
  explicit Worker(const Call &call) : c_(call) {}

  // tiles from first up to end, counted through all networks
  void run(int64_t first, int64_t end, const float *packed, Share &share) {
    if (first >= end) return;
    if (h_.empty()) allocate(packed == nullptr);
    share_ = &share;
    int64_t now = -1;
    for (int64_t t = first; t < end; t++) {
      const int64_t network = t / c_.tiles, start = t % c_.tiles * c_.tile;
      if (network != now) {
        if (now >= 0) finish(now, now * c_.tiles < first);
        now = network;
        if (!packed) pack(c_, network, packed_.get());
        weights_ = packed ? packed : packed_.get();
        if (c_.back) gradient_.zero();
      }
      const int64_t count = std::min(c_.tile, c_.points - start);
      forward(network, start, count);
      leave(network, start, count);
      if (c_.back) backward(network, start, count);
    }
    finish(now, now * c_.tiles < first);
  }

  static void pack(const Call &call, int64_t network, float *to);
  static void unpack(const Call &call, int64_t network, const float *gradient, bool add);

 private:
  const Call &c_;
  const float *weights_ = nullptr;
  Share *share_ = nullptr;
  Floats gradient_, packed_, x_, scratch_;
  std::vector<Floats> h_, d_;  // by layer; without a way back the values of two alternate

  void allocate(bool own_weights) {
    const size_t rows = static_cast<size_t>(c_.tile);
    // a block may read up to ROWS - 1 numbers beyond a row's end
    const size_t slack = 64;
    if (own_weights) packed_.resize(static_cast<size_t>(c_.packed_size));
    if (c_.back) gradient_.resize(static_cast<size_t>(c_.grad_size));
    x_.resize(rows * static_cast<size_t>(c_.x_ld) + slack);
    x_.zero();
    int64_t widest = c_.x_ld;
    for (const Layer &l : c_.layers) widest = std::max(widest, l.ld);
    scratch_.resize(rows * static_cast<size_t>(widest));
    for (size_t i = 0; i < c_.layers.size(); i++) {
      const bool another = c_.back || i < 2;
      const int64_t ld = c_.back ? c_.layers[i].ld : widest;
      h_.emplace_back(another ? rows * static_cast<size_t>(ld) + slack : 0);
      d_.emplace_back(c_.back ? rows * static_cast<size_t>(ld) + slack : 0);
      h_.back().zero();
      d_.back().zero();
    }
  }

  float *values(size_t layer) { return h_[c_.back ? layer : layer % 2].get(); }

  // a WIRE layer's u lies where others have the derivative
  void forward(int64_t network, int64_t start, int64_t count) {
    const Layer &head = c_.layers[0];
    const float *from = c_.coords + ((c_.common ? 0 : network * c_.points) + start) * head.in;
    for (int64_t p = 0; p < count; p++)
      std::memcpy(x_.get() + p * c_.x_ld, from + p * head.in,
                  static_cast<size_t>(head.in) * sizeof(float));
    const int64_t rows = up(count, STEP);
    // whole blocks go through the layers; what comes of the rows at the end is not looked at
    for (int64_t p = count; p < rows; p++)
      std::memset(x_.get() + p * c_.x_ld, 0, static_cast<size_t>(head.in) * sizeof(float));
    const float *in = x_.get();
    int64_t lda = c_.x_ld;
    for (size_t i = 0; i < c_.layers.size(); i++) {
      const Layer &l = c_.layers[i];
      const float *w = weights_ + l.forward_at;
      const float *bias = l.bias ? weights_ + l.packed_bias_at : nullptr;
      float *h = values(i), *d = c_.back ? d_[i].get() : nullptr;
      if (l.few_out) {
        dots(in, lda, rows, w, l.in_vec * LANES, l.in_vec, l.out, h, l.ld, bias, l.omega);
      } else if (l.name == WIRE) {
        float *u = d ? d : scratch_.get();
        multiply<End::SCALE>(in, lda, rows, w, l.k, l.out_vec, u, l.ld, bias, l.omega,
                             [](float *, int64_t, int, int) {});
        wire(u, h, l.ld, rows, l.half, l.ratio);
      } else {
        multiply<End::SCALE>(in, lda, rows, w, l.k, l.out_vec, h, l.ld, bias, l.omega,
                             [&](float *block, int64_t at, int r, int v) {
                               activate(l.name, block, d ? d + at : nullptr, l.ld, r, v, l.omega);
                             });
      }
      in = h;
      lda = l.ld;
    }
  }

  // the values go out, or become the gradient of the loss by what the last layer multiplies
  void leave(int64_t network, int64_t start, int64_t count) {
    const size_t last = c_.layers.size() - 1;
    const Layer &l = c_.layers[last];
    const int64_t width = l.out, offset = (network * c_.points + start) * width;
    float *h = values(last);
    double total = 0;
    for (int64_t p = 0; p < count; p++) {
      float *y = h + p * l.ld;
      const int64_t at = offset + p * width;
      if (c_.values) std::memcpy(c_.values + at, y, static_cast<size_t>(width) * sizeof(float));
      if (c_.targets)
        for (int64_t j = 0; j < width; j++) {
          const float off = y[j] - c_.targets[at + j];
          total += static_cast<double>(off) * static_cast<double>(off);
          y[j] = 2.0f * l.omega * off;
        }
      else if (c_.upstream)
        for (int64_t j = 0; j < width; j++) y[j] = l.omega * c_.upstream[at + j];
    }
    share_->loss += total;
  }

  void backward(int64_t network, int64_t start, int64_t count) {
    const int64_t rows = up(count, STEP);
    const float *dz = values(c_.layers.size() - 1);
    for (int64_t i = static_cast<int64_t>(c_.layers.size()) - 1; i >= c_.lowest; i--) {
      const Layer &l = c_.layers[static_cast<size_t>(i)];
      const size_t before = static_cast<size_t>(i) - 1;
      const float *in = i ? values(before) : x_.get();
      const int64_t ldin = i ? c_.layers[before].ld : c_.x_ld;
      float *grad = gradient_.get();
      if (l.bias_grad) add_rows(dz, l.ld, l.out_vec, count, grad + l.bias_at);
      if (l.weight_grad && l.swapped)
        outer(in, ldin, l.k, dz, l.ld, l.out_vec, count, grad + l.grad_at, l.grad_ld);
      else if (l.weight_grad)
        outer(dz, l.ld, l.n, in, ldin, l.in_vec, count, grad + l.grad_at, l.grad_ld);
      if (i == 0 && c_.coord_grad) {
        to_inputs<End::SCALE>(l, dz, rows, scratch_.get(), c_.x_ld);
        float *to = c_.coord_grad + (network * c_.points + start) * l.in;
        for (int64_t p = 0; p < count; p++)
          std::memcpy(to + p * l.in, scratch_.get() + p * c_.x_ld,
                      static_cast<size_t>(l.in) * sizeof(float));
      } else if (i > c_.lowest) {
        const Layer &b = c_.layers[before];
        float *d = d_[before].get();
        if (b.name == WIRE) {
          to_inputs<End::SCALE>(l, dz, rows, scratch_.get(), b.ld);
          wire_back(scratch_.get(), values(before), d, b.ld, rows, b.half, b.ratio,
                    b.omega);
        } else {
          to_inputs<End::TIMES>(l, dz, rows, d, b.ld);
        }
        dz = d;
      }
    }
  }

  // the gradient by a layer's inputs, or times what is there already
  template <End END>
  void to_inputs(const Layer &l, const float *dz, int64_t rows, float *to, int64_t ld) {
    const float *w = weights_ + l.back_at;
    if (l.few_in)
      dots(dz, l.ld, rows, w, l.out_vec * LANES, l.out_vec, l.in, to, ld, nullptr, 1.0f);
    else
      multiply<END>(dz, l.ld, rows, w, l.n, l.in_vec, to, ld, nullptr, 1.0f,
                    [](float *, int64_t, int, int) {});
  }

  // a network's last tile here: others may still add to it, so what another began is kept apart
  void finish(int64_t network, bool begun_elsewhere) {
    if (!c_.back) return;
    if (!begun_elsewhere) return unpack(c_, network, gradient_.get(), false);
    share_->spill = std::move(gradient_);
    share_->spilled = network;
    gradient_ = Floats(static_cast<size_t>(c_.grad_size));
  }
};

// c[k][n] = from[n][k] for n in [n0, n1), where c's columns lie in panels of WIDE vectors
void pack_transposed(const float *from, int64_t ld, int64_t k0, int64_t k1, int64_t n0, int64_t n1,
                     int64_t depth, int64_t vectors, float *to) {
  for (int64_t n = n0; n < n1;) {
    const int64_t first = n / (WIDE * LANES) * WIDE;  // in vectors
    const int64_t columns = std::min<int64_t>(WIDE, vectors - first) * LANES;
    const int64_t end = std::min(n1, first * LANES + columns);
    for (int64_t k = k0; k < k1; k++) {
      float *row = to + first * LANES * depth + k * columns - first * LANES;
      for (int64_t i = n; i < end; i++) row[i] = from[(i - n0) * ld + k - k0];
    }
    n = end;
  }
}

// c[n][k] = from[n][k] likewise
void pack_plain(const float *from, int64_t ld, int64_t k0, int64_t k1, int64_t n0, int64_t n1,
                int64_t depth, int64_t vectors, float *to) {
  for (int64_t k = k0; k < k1;) {
    const int64_t first = k / (WIDE * LANES) * WIDE;
    const int64_t columns = std::min<int64_t>(WIDE, vectors - first) * LANES;
    const int64_t end = std::min(k1, first * LANES + columns);
    for (int64_t n = n0; n < n1; n++)
      std::memcpy(to + first * LANES * depth + n * columns + k - first * LANES,
                  from + (n - n0) * ld + k - k0, static_cast<size_t>(end - k) * sizeof(float));
    k = end;
  }
}

void Worker::pack(const Call &call, int64_t network, float *to) {
  std::memset(to, 0, static_cast<size_t>(call.packed_size) * sizeof(float));
  for (const Layer &l : call.layers) {
    const float *w = l.weight + network * l.in * l.out;
    for (const Run &j : l.outputs)
      for (const Run &m : l.inputs) {
        const float *from = w + j.unit * l.in + m.unit;
        const int64_t k0 = m.at, k1 = m.at + m.count, n0 = j.at, n1 = j.at + j.count;
        float *forward = to + l.forward_at, *back = to + l.back_at;
        if (!l.few_out)
          pack_transposed(from, l.in, k0, k1, n0, n1, l.k, l.out_vec, forward);
        else  // as it is
          for (int64_t n = n0; n < n1; n++)
            std::memcpy(forward + n * l.in_vec * LANES + k0, from + (n - n0) * l.in,
                        static_cast<size_t>(m.count) * sizeof(float));
        if (!call.back) continue;
        if (!l.few_in)
          pack_plain(from, l.in, k0, k1, n0, n1, l.n, l.in_vec, back);
        else
          for (int64_t k = k0; k < k1; k++)
            for (int64_t n = n0; n < n1; n++)
              back[k * l.out_vec * LANES + n] = from[(n - n0) * l.in + k - k0];
      }
    if (l.bias)
      for (const Run &j : l.outputs)
        std::memcpy(to + l.packed_bias_at + j.at, l.bias + network * l.out + j.unit,
                    static_cast<size_t>(j.count) * sizeof(float));
  }
}

void Worker::unpack(const Call &call, int64_t network, const float *gradient, bool add) {
  auto give = [add](float *to, const float *from, int64_t stride, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = add ? to[i] + from[i * stride] : from[i * stride];
  };
  for (const Layer &l : call.layers)
    for (const Run &j : l.outputs) {
      if (l.bias_grad)
        give(l.bias_grad + network * l.out + j.unit, gradient + l.bias_at + j.at, 1, j.count);
      if (!l.weight_grad) continue;
      const int64_t across = l.swapped ? l.grad_ld : 1, down = l.swapped ? 1 : l.grad_ld;
      for (const Run &m : l.inputs)
        for (int64_t n = 0; n < j.count; n++)
          give(l.weight_grad + (network * l.out + j.unit + n) * l.in + m.unit,
               gradient + l.grad_at + (j.at + n) * down + m.at * across, across, m.count);
    }
}

// adds up, in their order, what several shares have of one network
int collect(const Call &call, std::vector<Share> &shares) {
  for (size_t i = 0; i < shares.size();) {
    Share &first = shares[i];
    size_t end = i + 1;
    if (first.spilled >= 0) {
      while (end < shares.size() && shares[end].spilled == first.spilled) end++;
      const int64_t size = call.grad_size;
      const int count = static_cast<int>(std::min<int64_t>(call.threads, size / 100000 + 1));
      const int status = in_threads(count, [&](int t) {
        for (size_t other = i + 1; other < end; other++) {
          float *to = first.spill.get();
          const float *from = shares[other].spill.get();
          for (int64_t at = size * t / count; at < size * (t + 1) / count; at++)
            to[at] += from[at];
        }
      });
      if (status != DONE) return status;
      Worker::unpack(call, first.spilled, first.spill.get(), true);
    }
    i = end;
  }
  return DONE;
}

int run(Call &call) {
  call.prepare();
  if (call.loss) *call.loss = 0;
  Floats packed;
  if (call.networks == 1 && call.points) {
    packed.resize(static_cast<size_t>(call.packed_size));
    Worker::pack(call, 0, packed.get());
  }
  std::vector<Share> shares(static_cast<size_t>(call.shares));
  const int64_t total = call.networks * call.tiles;
  std::atomic<int64_t> next{0};
  const int status = in_threads(static_cast<int>(call.threads), [&](int) {
    Worker worker(call);
    for (int64_t s = next++; s < call.shares; s = next++)
      worker.run(total * s / call.shares, total * (s + 1) / call.shares,
                 call.networks == 1 ? packed.get() : nullptr, shares[static_cast<size_t>(s)]);
  });
  if (status != DONE) return status;
  double loss = 0;
  for (const Share &share : shares) loss += share.loss;
  if (call.loss) *call.loss = static_cast<float>(loss);
  return call.back ? collect(call, shares) : DONE;
}

}  // namespace

// Numbers: networks, points, threads, whether points are common; addresses of coordinates, targets,
// upstream, values, coordinates' gradient and loss (0 for none); then for each layer inputs,
// outputs, its activation, and addresses of weight, bias and the gradients of both. Factors: omega
// and ratio of each layer. Gradients of no points are left alone.
extern "C" int inr_mlp(int64_t layers, const int64_t *numbers, const float *factors) {
  return guarded([&] {
    auto floats = [](int64_t address) { return reinterpret_cast<float *>(address); };
    Call call{};
    call.networks = numbers[0];
    call.points = numbers[1];
    call.threads = numbers[2];
    call.common = numbers[3] != 0;
    call.coords = floats(numbers[4]);
    call.targets = floats(numbers[5]);
    call.upstream = floats(numbers[6]);
    call.values = floats(numbers[7]);
    call.coord_grad = floats(numbers[8]);
    call.loss = floats(numbers[9]);
    for (int64_t i = 0; i < layers; i++) {
      const int64_t *n = numbers + 10 + 7 * i;
      Layer layer{};
      layer.in = n[0];
      layer.out = n[1];
      layer.name = n[2];
      layer.omega = factors[2 * i];
      layer.ratio = factors[2 * i + 1];
      layer.weight = floats(n[3]);
      layer.bias = floats(n[4]);
      layer.weight_grad = floats(n[5]);
      layer.bias_grad = floats(n[6]);
      call.layers.push_back(layer);
    }
    const int status = run(call);
    if (status == NO_MEMORY) throw std::bad_alloc();
    if (status != DONE) throw std::exception();
  });
}
