// Unit tests of base/region: by example, and at random with every byte of every block checked.
#include "base/region.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h> // after what it needs

#include "regions.h"

enum { LEN = 65536, HEAD_LEN = sizeof(struct moon_region_block) };

struct fixture {
    struct moon_region region;
    char *memory;
};

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof *f);
    f->memory = aligned_alloc(64, LEN);
    memset(f->memory, 0xa5, LEN); // a region needs no zeroes
    moon_region_init(&f->region, f->memory, LEN);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    check_region(&f->region);
    free(f->memory);
    free(f);
    return 0;
}

static void one_block_takes_it_all(void **state)
{
    struct fixture *f = *state;
    uint32_t units = moon_region_max_units(&f->region);
    assert_int_equal(units, LEN / MOON_REGION_UNIT_LEN - 2);
    uint32_t at = moon_region_take(&f->region, units);
    assert_int_equal(at, 1);
    assert_int_equal(f->region.free_units, 0);
    assert_int_equal(moon_region_take(&f->region, 1), 0);
    assert_int_equal(moon_region_give(&f->region, at), 1);
    assert_int_equal(f->region.free_units, units);
    assert_int_equal(moon_region_neighbour(&f->region, 1), 0);
    assert_int_equal(moon_region_take(&f->region, units + 1), 0);
    assert_int_equal(moon_region_take(&f->region, UINT32_C(1) << 30), 0);
}

static void neighbours_melt(void **state)
{
    struct fixture *f = *state;
    struct moon_region *r = &f->region;
    uint32_t a = moon_region_take(r, 10), b = moon_region_take(r, 20), c = moon_region_take(r, 30);
    uint32_t rest = moon_region_take(r, r->free_units);
    assert_int_equal(b, a + 10);
    assert_int_equal(c, b + 20);
    assert_int_equal(moon_region_give(r, a), a);
    assert_int_equal(moon_region_give(r, c), c);
    assert_int_equal(moon_region_neighbour(r, a), b);
    assert_int_equal(moon_region_neighbour(r, c), rest);
    assert_int_equal(moon_region_units_if_given(r, b), 60);
    assert_int_equal(moon_region_give(r, b), a);
    assert_int_equal(moon_region_units(r, a), 60);
    assert_int_equal(moon_region_take_at(r, a, 60), a);
    assert_int_equal(moon_region_give(r, rest), rest);
    assert_int_equal(moon_region_neighbour(r, rest), a); // nothing behind it
}

static void a_block_grows_and_shrinks_in_place(void **state)
{
    struct fixture *f = *state;
    struct moon_region *r = &f->region;
    uint32_t a = moon_region_take(r, 10), b = moon_region_take(r, 20), c = moon_region_take(r, 5);
    assert_false(moon_region_resize(r, a, 11)); // b is in the way
    moon_region_give(r, b);
    assert_true(moon_region_resize(r, a, 20));
    assert_int_equal(moon_region_units(r, a), 20);
    assert_true(moon_region_resize(r, a, 30));
    assert_false(moon_region_resize(r, a, 31));
    assert_true(moon_region_resize(r, a, 28)); // not worth a cut
    assert_int_equal(moon_region_units(r, a), 30);
    assert_true(moon_region_resize(r, a, 4));
    assert_int_equal(moon_region_units(r, a), 4);
    assert_int_equal(moon_region_take(r, 26), a + 4);
    assert_int_equal(check_region(r), 3);
    assert_true(moon_region_resize(r, c, 100));
}

// ---- at random

enum { BLOCK_COUNT = 200, STEPS = 30000 };

struct owned {
    uint32_t at, units;
    unsigned char fill;
};

static uint32_t draw(uint32_t *seed, uint32_t bound)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed % bound;
}

static void fill(struct fixture *f, struct owned *block, unsigned char byte)
{
    block->fill = byte;
    memset((char *)moon_region_block(&f->region, block->at) + HEAD_LEN, byte,
           block->units * MOON_REGION_UNIT_LEN - HEAD_LEN);
}

static void assert_filled(const struct fixture *f, const struct owned *block, uint32_t units)
{
    const unsigned char *bytes = moon_region_block(&f->region, block->at);
    for (size_t i = HEAD_LEN; i < (size_t)units * MOON_REGION_UNIT_LEN; i++)
        assert_true(bytes[i] == block->fill);
}

static void step(struct fixture *f, struct owned *block, uint32_t *seed)
{
    uint32_t units = 1 + draw(seed, draw(seed, 8) ? 40 : 1500);
    if (!block->at) {
        uint32_t free_units = f->region.free_units;
        block->at = moon_region_take(&f->region, units);
        if (!block->at)
            return;
        assert_true(free_units - f->region.free_units < units + 4);
    } else if (draw(seed, 2)) {
        if (!moon_region_resize(&f->region, block->at, units))
            return;
        assert_filled(f, block, units < block->units ? units : block->units);
    } else {
        assert_filled(f, block, block->units);
        moon_region_give(&f->region, block->at);
        block->at = 0;
        return;
    }
    block->units = units;
    fill(f, block, (unsigned char)draw(seed, 256));
}

static void blocks_never_touch_each_other(void **state)
{
    struct fixture *f = *state;
    struct owned *blocks = calloc(BLOCK_COUNT, sizeof *blocks);
    uint32_t seed = 20240117, count = 0;
    for (int i = 0; i < STEPS; i++) {
        step(f, &blocks[draw(&seed, BLOCK_COUNT)], &seed);
        if (i % 64 == 0)
            check_region(&f->region);
    }
    for (int i = 0; i < BLOCK_COUNT; i++)
        count += blocks[i].at != 0;
    assert_int_equal(check_region(&f->region), count);
    for (int i = 0; i < BLOCK_COUNT; i++) {
        if (!blocks[i].at)
            continue;
        assert_filled(f, &blocks[i], blocks[i].units);
        moon_region_give(&f->region, blocks[i].at);
    }
    assert_int_equal(f->region.free_units, moon_region_max_units(&f->region));
    free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_block_takes_it_all, setup, teardown),
        cmocka_unit_test_setup_teardown(neighbours_melt, setup, teardown),
        cmocka_unit_test_setup_teardown(a_block_grows_and_shrinks_in_place, setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_never_touch_each_other, setup, teardown),
    };
    return cmocka_run_group_tests_name("base/region", tests, NULL, NULL);
}
