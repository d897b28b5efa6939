#ifdef __x86_64__
#define RESECT_LANES 8
#define RESECT_SET avx2
#include "core/models/cpu_kernels_body.h"
#endif
