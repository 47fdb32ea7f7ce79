// Replays recorded plans outside Python and compares the arrays with those that NumPy computed; see aarch64.py.
//
// Linked with the runtime and with kernels whose functions are called gpumlp_kernel_0, gpumlp_kernel_1, ...; KERNELS
// lists them as X(0) X(1) ...  The file that it reads holds 8-byte integers and the bytes of arrays, in this machine's
// order.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef long long Long;
typedef union { Long i; double d; void *p; } Word;
struct Phase { Long first, end, tasks; };

extern "C" {
void gpumlp_setup(Long threads);
void gpumlp_replay(const Word *const *ops, const Phase *phases, Long n_phases, const char *table, Long row_bytes, Long k,
                   Long advance, Long times);
#define X(n) void gpumlp_kernel_##n();
KERNELS
#undef X
}

#define X(n) (void *)gpumlp_kernel_##n,
static void *const kernels[] = {KERNELS};
#undef X

static FILE *file;
static Long number() {
    Long n;
    if (fread(&n, 8, 1, file) != 1) exit(2);
    return n;
}
static double real(const char *data, Long size, Long i) {
    return size == 4 ? ((const float *)data)[i] : ((const double *)data)[i];
}

int main(int, char **argv) {
    file = fopen(argv[1], "rb");
    if (!file) return 2;
    int wrong = 0;
    gpumlp_setup(4);
    for (Long plan = 0, plans = number(); plan < plans; ++plan) {
        const Long n_arrays = number();
        char **arrays = (char **)malloc(n_arrays * sizeof(char *));
        for (Long i = 0; i < n_arrays; ++i) {
            const Long bytes = number();
            arrays[i] = (char *)aligned_alloc(64, (bytes + 127) / 64 * 64);
            if (fread(arrays[i], 1, bytes, file) != (size_t)bytes) return 2;
        }
        const Long n_ops = number();
        Word **ops = (Word **)malloc(n_ops * sizeof(Word *));
        for (Long i = 0; i < n_ops; ++i) {
            const Long n_words = number();
            ops[i] = (Word *)malloc(n_words * sizeof(Word));
            for (Long j = 0; j < n_words; ++j) {
                const Long kind = number(), value = number();  // 0: as it is; 1: a kernel; else a place in array kind - 2
                if (kind == 0) ops[i][j].i = value;
                else ops[i][j].p = kind == 1 ? kernels[value] : arrays[kind - 2] + value;
            }
        }
        const Long n_phases = number();
        Phase *phases = (Phase *)malloc(n_phases * sizeof(Phase));
        for (Long i = 0; i < n_phases; ++i) phases[i].first = number(), phases[i].end = number(), phases[i].tasks = number();
        const Long table = number(), place = number(), row_bytes = number(), times = number();
        gpumlp_replay(ops, phases, n_phases, arrays[table] + place, row_bytes, 0, 1, times);
        double worst = 0;
        for (Long results = number(); results > 0; --results) {
            const Long array = number(), place = number(), size = number(), rows = number(), cols = number(), pitch = number();
            char *expected = (char *)malloc(rows * cols * size + 1);
            if (fread(expected, size, rows * cols, file) != (size_t)(rows * cols)) return 2;
            for (Long i = 0; i < rows * cols; ++i) {
                const double a = real(arrays[array] + place + i / cols * pitch, size, i % cols), b = real(expected, size, i);
                const double off = fabs(a - b) / (1 + fabs(b));
                if (!(off <= worst)) worst = off == off ? off : INFINITY;
            }
            free(expected);
        }
        const Long bits = number();
        const double bound = ldexp(1, -(int)bits);
        printf("plan %lld: %lld operations, %lld phases, %lld times: largest difference %.1e (at most %.1e)\n", plan, n_ops,
               n_phases, times, worst, bound);
        wrong |= !(worst <= bound);
    }
    return wrong;
}
