/* The one unit of the native module that holds the reader of shm/include/shmconf.h. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"
