// Inputs: what an evaluation of configuration scripts took from outside: files, environment variables, the time, a seed. The
// first evaluation records them; those of the workers' VMs are given the same, so that all see one world (DESIGN 4).
// One thread at a time.
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct moon_inputs;
struct moon_world;

// Records from now on. `world` outlives it, or its freezing.
struct moon_inputs *moon_inputs_new(struct moon_world *world);
// NULL is fine.
void moon_inputs_free(struct moon_inputs *inputs);
// Nothing new is taken any more: what was not recorded is -ESTALE.
void moon_inputs_freeze(struct moon_inputs *inputs);

// A whole file; *out is borrowed until the inputs are freed. 0 or -errno, recorded like a content.
int moon_inputs_file(struct moon_inputs *inputs, const char *path, struct moon_slice *out);
// A file that is nowhere on a disk: it is answered from now on. Copied.
void moon_inputs_put_file(struct moon_inputs *inputs, const char *path, struct moon_slice text);
// An environment variable. 0, -ENOENT when it is not set, or -ESTALE.
int moon_inputs_env(struct moon_inputs *inputs, const char *name, struct moon_slice *out);
// The evaluation's time, one for all of it / its seed of random numbers. Asking for them makes every evaluation another.
uint64_t moon_inputs_wall_ms(struct moon_inputs *inputs);
uint64_t moon_inputs_seed(struct moon_inputs *inputs);

// Writes all that was recorded, for moon_inputs_read: an evaluation with those sees what this one saw. Secrets are among it.
void moon_inputs_write(const struct moon_inputs *inputs, FILE *out);
// Frozen. NULL: the text is no such thing, or was cut.
struct moon_inputs *moon_inputs_read(struct moon_slice text);

// Whether both evaluations saw the same; never when one of them asked for time or chance.
bool moon_inputs_equal(const struct moon_inputs *a, const struct moon_inputs *b);
