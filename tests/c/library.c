/* The C reader as a shared library, for c_reader.py. What is inline in the header gets a function here, and so does what
 * only a test may do. */
#define SHMCONF_IMPLEMENTATION
#include "shmconf.h"

/* In the order of c_reader.STRUCTURES. */
const size_t shmconf_test_sizes[] = {sizeof(shmconf_fault), sizeof(shmconf_status), sizeof(shmconf_snapshot),
                                     sizeof(shmconf_int_cell), sizeof(shmconf_double_cell), sizeof(shmconf_bool_cell),
                                     sizeof(shmconf_part)};

int shmconf_test_int_cell_get(shmconf_int_cell *cell, int64_t *value);
int shmconf_test_double_cell_get(shmconf_double_cell *cell, double *value);
int shmconf_test_bool_cell_get(shmconf_bool_cell *cell, bool *value);
void shmconf_test_set_patience(shmconf_reader *reader, int64_t patience);

int
shmconf_test_int_cell_get(shmconf_int_cell *cell, int64_t *value)
{
    return shmconf_int_cell_get(cell, value);
}

int
shmconf_test_double_cell_get(shmconf_double_cell *cell, double *value)
{
    return shmconf_double_cell_get(cell, value);
}

int
shmconf_test_bool_cell_get(shmconf_bool_cell *cell, bool *value)
{
    return shmconf_bool_cell_get(cell, value);
}

void
shmconf_test_set_patience(shmconf_reader *reader, int64_t patience)
{
    shmconf_segment_set_patience(reader->segment, patience);
}
