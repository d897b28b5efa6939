#define RESECT_LANES 4
#define RESECT_SET baseline
#include "core/models/cpu_kernels_body.h"
