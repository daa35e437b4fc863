// Vectors, elementary functions, memory and threads for the kernels beside this file.
//
// Vectors are GCC's and Clang's own (`vector_size`), as wide as the target has them, so that one
// source serves AVX-512, AVX2, SSE and NEON. No -ffast-math: a NaN must stay one. Accuracies below
// are the largest found over the ranges named, against float64, with fused multiply-add.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace inr {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
// the same at any address
typedef float loose_vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

#define INR_INLINE inline __attribute__((always_inline))

// ---- vectors ----

INR_INLINE vec load(const float *from) { return *reinterpret_cast<const loose_vec *>(from); }

INR_INLINE void store(float *to, vec x) { *reinterpret_cast<loose_vec *>(to) = x; }

INR_INLINE vec splat(float x) {
#if defined(__AVX512F__)
  return (vec){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif defined(__AVX__)
  return (vec){x, x, x, x, x, x, x, x};
#else
  return (vec){x, x, x, x};
#endif
}

INR_INLINE ivec isplat(int32_t x) {
#if defined(__AVX512F__)
  return (ivec){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif defined(__AVX__)
  return (ivec){x, x, x, x, x, x, x, x};
#else
  return (ivec){x, x, x, x};
#endif
}

INR_INLINE ivec bits(vec x) { return reinterpret_cast<ivec>(x); }

INR_INLINE vec from_bits(ivec x) { return reinterpret_cast<vec>(x); }

// where the mask is all ones (comparisons give such masks) a, where it is 0 b
INR_INLINE vec select(ivec mask, vec a, vec b) { return mask ? a : b; }

INR_INLINE vec vabs(vec x) { return from_bits(bits(x) & isplat(0x7fffffff)); }

INR_INLINE float sum(vec x) {
#if defined(__AVX__)
#if defined(__AVX512F__)
  // the masked forms are the same instructions; of the others GCC 12 believes that they read
  // something undefined
  const __m512 all = reinterpret_cast<__m512>(x);
  __m128 four = (_mm512_maskz_extractf32x4_ps(15, all, 0) +
                 _mm512_maskz_extractf32x4_ps(15, all, 1)) +
                (_mm512_maskz_extractf32x4_ps(15, all, 2) +
                 _mm512_maskz_extractf32x4_ps(15, all, 3));
#else
  const __m256 eight = reinterpret_cast<__m256>(x);
  __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
#endif
  four += _mm_movehl_ps(four, four);
  return four[0] + four[1];
#else
  float total = 0;
  for (int i = 0; i < LANES; i++) total += x[i];
  return total;
#endif
}

INR_INLINE bool any(ivec mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask),
                                reinterpret_cast<__m512i>(mask)) != 0;
#elif defined(__AVX__)
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#else
  int32_t some = 0;
  for (int i = 0; i < LANES; i++) some |= mask[i];
  return some != 0;
#endif
}

INR_INLINE vec vsqrt(vec x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vec>(_mm512_maskz_sqrt_ps(0xffff, reinterpret_cast<__m512>(x)));
#elif defined(__AVX__)
  return reinterpret_cast<vec>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#else
  for (int i = 0; i < LANES; i++) x[i] = std::sqrt(x[i]);
  return x;
#endif
}

// ---- elementary functions ----

// beyond this, sine and cosine are taken lane by lane in double precision
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
constexpr float FAR_PHASE = 1e6f;
#else
constexpr float FAR_PHASE = 8000.0f;
#endif

__attribute__((noinline, cold)) inline void far_sincos(const float *u, float *s, float *c) {
  for (int i = 0; i < LANES; i++) {
    s[i] = static_cast<float>(std::sin(static_cast<double>(u[i])));
    c[i] = static_cast<float>(std::cos(static_cast<double>(u[i])));
  }
}

// Sine and cosine to 2e-7 absolutely, at any finite u; NaN of NaN and infinities.
INR_INLINE void sincos(vec u, vec &s, vec &c) {
  // adding 1.5 * 2^23 rounds u / pi to an integer, whose parity is then the lowest bit
  const vec magic = splat(12582912.0f);
  vec shifted = u * 0.318309886f + magic;
  vec turns = shifted - magic;
  // pi in parts (Cody and Waite): with fused multiply-add every product is exact; without, the
  // first two parts are short enough that it is as well
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  vec r = u - turns * 3.14159274f;
  r = r + turns * 8.74227766e-8f;
#else
  vec r = u - turns * 3.140625f;
  r = r - turns * 9.67502594e-4f;
  r = r - turns * 1.50995799e-7f;
#endif
  vec square = r * r;
  vec sine = (square * 2.60886077e-06f - 0.000198110836f) * square + 0.0083330879f;
  sine = ((sine * square - 0.166666597f) * square) * r + r;
  vec cosine = (square * -2.61931433e-07f + 2.47692715e-05f) * square - 0.00138885691f;
  cosine = ((cosine * square + 0.0416666567f) * square - 0.5f) * square + 1.0f;
  ivec flip = bits(shifted) << 31;
  s = from_bits(bits(sine) ^ flip);
  c = from_bits(bits(cosine) ^ flip);
  if (__builtin_expect(any(vabs(u) > FAR_PHASE), 0)) {
    alignas(64) float given[LANES], sines[LANES], cosines[LANES];
    store(given, u);
    far_sincos(given, sines, cosines);
    s = load(sines);
    c = load(cosines);
  }
}

// Exponential, 2e-7 relatively; what is below the smallest normal number may be 0.
INR_INLINE vec vexp(vec x) {
  // comparisons with NaN are false, so that it passes
  x = select(x > 89.0f, splat(89.0f), x);
  x = select(x < -104.0f, splat(-104.0f), x);
  const vec magic = splat(12582912.0f);
  vec shifted = x * 1.44269504f + magic;
  vec n = shifted - magic;
  vec r = x - n * 0.693145752f;
  r = r - n * 1.42860677e-6f;
  vec p = ((r * 0.00139544299f + 0.00837116409f) * r + 0.0416661464f) * r + 0.166664988f;
  p = (p * r + 0.5f) * (r * r) + r + 1.0f;
  // 2^n in two factors: n may be one beyond either end of the exponents
  ivec whole = bits(shifted) - bits(magic);
  ivec half = whole >> 1;
  return p * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
}

// log(1 + x) of x >= 0, 2e-7 relatively.
INR_INLINE vec vlog1p(vec x) {
  vec y = x + 1.0f;
  // y = 2^n (1 + f), 1 + f in [sqrt(1/2), sqrt(2))
  ivec moved = bits(y) + isplat(0x3f800000 - 0x3f3504f3);
  ivec n = (moved >> 23) - 127;
  vec f = from_bits((moved & 0x007fffff) + 0x3f3504f3) - 1.0f;
  // what was lost in rounding 1 + x
  vec lost = (x - (y - 1.0f)) / y;
  lost = select(y > 1e30f, vec{}, lost);
  vec p = (f * -0.0785954595f + 0.128816217f) * f - 0.131287679f;
  p = ((p * f + 0.141811967f) * f - 0.166245535f) * f + 0.200022861f;
  p = (p * f - 0.250008106f) * f + 0.333333164f;
  vec square = f * f;
  vec count = __builtin_convertvector(n, vec);
  vec small = p * f * square - 0.5f * square + lost + count * 1.42860677e-6f;
  vec result = (small + f) + count * 0.693145752f;
  return select(x < __builtin_inff(), result, x + x);
}

// Arc tangent, 2e-7 relatively.
INR_INLINE vec vatan(vec x) {
  vec a = vabs(x);
  ivec large = a > 2.41421356f;
  ivec middle = a > 0.414213562f;
  vec above = select(large, splat(-1.0f), a - 1.0f);
  vec below = select(large, a, a + 1.0f);
  vec t = select(middle, above / below, a);
  vec start = select(large, splat(1.57079637f), select(middle, splat(0.785398163f), vec{}));
  vec square = t * t;
  vec p = (square * 0.0803603083f - 0.13872847f) * square + 0.199773297f;
  p = (p * square - 0.333329409f) * square;
  vec result = start + (p * t + t);
  return from_bits(bits(result) | (bits(x) & isplat(INT32_MIN)));
}

// Error function, 2e-7 absolutely and, below 0.9, relatively.
INR_INLINE vec verf(vec x) {
  vec a = vabs(x);
  vec square = x * x;
  vec near = (square * 8.21542344e-05f - 0.00081059651f) * square + 0.00519779697f;
  near = ((near * square - 0.0268581044f) * square + 0.112836726f) * square - 0.376126319f;
  near = (near * square + 0.128379166f) * x + x;
  vec b = select(a > 4.2f, splat(4.2f), a);
  vec far = (b * -0.000197182628f + 0.00305561582f) * b - 0.0222771168f;
  far = ((far * b + 0.104037419f) * b + 0.637059689f) * b + 1.12774956f;
  far = 1.0f - vexp(-(far * b + 0.000177487236f));
  far = from_bits(bits(far) | (bits(x) & isplat(INT32_MIN)));
  return select(a < 0.9f, near, far);
}

// ---- memory ----

// Floats at an address that vectors like; what they are is undefined until `zero` or use.
class Floats {
 public:
  Floats() = default;
  explicit Floats(size_t count) { resize(count); }
  Floats(Floats &&other) noexcept : at_(other.at_), count_(other.count_) {
    other.at_ = nullptr;
    other.count_ = 0;
  }
  Floats &operator=(Floats &&other) noexcept {
    std::swap(at_, other.at_);
    std::swap(count_, other.count_);
    return *this;
  }
  Floats(const Floats &) = delete;
  Floats &operator=(const Floats &) = delete;
  ~Floats() { free(); }

  // forgets what was there; throws std::bad_alloc
  void resize(size_t count) {
    free();
    at_ = static_cast<float *>(::operator new(std::max<size_t>(count, 1) * sizeof(float), ALIGN));
    count_ = count;
  }
  void zero() { std::memset(at_, 0, count_ * sizeof(float)); }
  float *get() { return at_; }
  const float *get() const { return at_; }
  size_t size() const { return count_; }

 private:
  static constexpr std::align_val_t ALIGN{128};
  void free() {
    if (at_) ::operator delete(at_, ALIGN);
    at_ = nullptr;
    count_ = 0;
  }
  float *at_ = nullptr;
  size_t count_ = 0;
};

// ---- threads ----

enum Status : int { DONE = 0, NO_MEMORY = 1, FAILED = 2 };

// What a C function returns instead of throwing.
template <class Work>
int guarded(Work &&work) noexcept {
  try {
    work();
    return DONE;
  } catch (const std::bad_alloc &) {
    return NO_MEMORY;
  } catch (...) {
    return FAILED;
  }
}

// work(0), ..., work(count - 1) at the same time, the first here and each other in a thread of its
// own; returns when all are done, with the first status that is not DONE. A thread that the system
// does not grant is done here instead, so that results never depend on it. Threads of our own, not
// OpenMP's: torch brings a libgomp along, and two of them spin against each other.
template <class Work>
int in_threads(int count, Work &&work) noexcept {
  std::vector<int> status;
  std::vector<std::thread> threads;
  int prepared = guarded([&] {
    status.assign(static_cast<size_t>(std::max(count, 0)), DONE);
    threads.reserve(static_cast<size_t>(std::max(count, 0)));
  });
  if (prepared != DONE) return prepared;
  int here = 1;  // from here on to count they could not be started
  for (here = 1; here < count; here++) {
    try {
      threads.emplace_back([&status, &work, here] { status[here] = guarded([&] { work(here); }); });
    } catch (const std::system_error &) {
      break;
    }
  }
  if (count > 0) status[0] = guarded([&] { work(0); });
  for (int i = here; i < count; i++) status[i] = guarded([&] { work(i); });
  for (std::thread &thread : threads) thread.join();
  for (int each : status)
    if (each != DONE) return each;
  return DONE;
}

}  // namespace inr
