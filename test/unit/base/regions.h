// Walks a region from end to end and fails the test where it is not what region.c promises. For tests of base/.
#pragma once

#include "base/region.h"

static inline uint32_t check_region(const struct moon_region *region)
{
    uint32_t taken_count = 0, free_units = 0, prev_units = 0, listed_units = 0;
    bool prev_is_free = false;
    for (uint32_t at = 1; at != region->end;) {
        assert_true(at < region->end);
        const struct moon_region_block *block = moon_region_block(region, at);
        bool is_free = !(block->span & 1);
        assert_int_equal(block->prev_units, prev_units);
        assert_false(is_free && prev_is_free);
        prev_is_free = is_free;
        prev_units = block->span >> 1;
        assert_true(prev_units > 0);
        free_units += is_free ? prev_units : 0;
        taken_count += !is_free;
        at += prev_units;
    }
    const struct moon_region_block *sentinel = moon_region_block(region, region->end);
    assert_int_equal(sentinel->span, 1);
    assert_int_equal(sentinel->prev_units, prev_units);
    assert_int_equal(region->free_units, free_units);
    for (int row = 0; row < MOON_REGION_ROW_COUNT; row++) {
        assert_int_equal(region->rows >> row & 1, region->columns[row] != 0);
        for (int column = 0; column < MOON_REGION_COLUMN_COUNT; column++) {
            uint32_t at = region->heads[row][column];
            assert_int_equal(region->columns[row] >> column & 1, at != 0);
            for (; at; at = ((const uint32_t *)moon_region_block(region, at))[2])
                listed_units += moon_region_units(region, at);
        }
    }
    assert_int_equal(listed_units, free_units);
    return taken_count;
}
