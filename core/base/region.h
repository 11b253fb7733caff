// A fixed piece of memory cut into blocks (two-level segregated fit with boundary tags: Masmano et al., ECRTS 2004). Take and give
// are O(1); neighbours that are free melt at once, so that a region whose blocks were all given back is one block again. Nothing is
// ever moved. Blocks are named by their place, in units of 16 bytes from the start; 0 is no block.
//
// What is not yet used is not touched: a region on fresh pages costs what it holds. Not thread safe.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MOON_REGION_UNIT_LEN = 16,
    MOON_REGION_ROW_COUNT = 29,
    MOON_REGION_COLUMN_COUNT = 8,
};
#define MOON_REGION_MAX_LEN ((size_t)1 << 34) // 16 GiB

// The start of every block; its taker keeps its hands off.
struct moon_region_block {
    uint32_t span;       // units << 1 | is taken
    uint32_t prev_units; // of the block before it; 0: it is the first
};

// Embedded in its owner; nobody else looks inside.
struct moon_region {
    char *base;
    uint32_t end;        // place of the sentinel, a taken block without length
    uint32_t free_units; // in all
    uint32_t rows;       // bit r: row r has a block
    uint8_t columns[MOON_REGION_ROW_COUNT];
    uint32_t heads[MOON_REGION_ROW_COUNT][MOON_REGION_COLUMN_COUNT];
};

// Borrows `memory`, aligned to 16 bytes; 64 bytes to MOON_REGION_MAX_LEN of it. Also empties a region.
void moon_region_init(struct moon_region *region, void *memory, size_t len);
// The longest block there can ever be.
uint32_t moon_region_max_units(const struct moon_region *region);

// A block of at least so many units, its own 8 bytes included; 0 where none was found. Finds one for sure where a free block has
// 1/8 more than that.
uint32_t moon_region_take(struct moon_region *region, uint32_t units);
// Takes from this very block, which is free and long enough.
uint32_t moon_region_take_at(struct moon_region *region, uint32_t at, uint32_t units);
// Returns the free block that it became part of.
uint32_t moon_region_give(struct moon_region *region, uint32_t at);
// Makes a taken block longer (into a free block behind it) or shorter where it stands; false, and nothing done, where it can not.
bool moon_region_resize(struct moon_region *region, uint32_t at, uint32_t units);

static inline void *moon_region_block(const struct moon_region *region, uint32_t at)
{
    return region->base + (size_t)at * MOON_REGION_UNIT_LEN;
}

static inline uint32_t moon_region_place(const struct moon_region *region, const void *block)
{
    return (uint32_t)((size_t)((const char *)block - region->base) / MOON_REGION_UNIT_LEN);
}

uint32_t moon_region_units(const struct moon_region *region, uint32_t at);
// The taken block next to a free one: behind it, else before it; 0 where the free block is all there is.
uint32_t moon_region_neighbour(const struct moon_region *region, uint32_t at);
// The units of the free block that giving this one back would make.
uint32_t moon_region_units_if_given(const struct moon_region *region, uint32_t at);
