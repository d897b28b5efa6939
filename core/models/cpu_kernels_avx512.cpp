#ifdef __x86_64__
#define RESECT_LANES 16
#define RESECT_SET avx512
#include "core/models/cpu_kernels_body.h"
#endif
