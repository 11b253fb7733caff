// The region: free blocks in lists by length, 8 lists to each power of two, found by two bitmaps.
//
//   base: | unused unit | block | block | ... | sentinel |        block: | span, prev_units | what its taker keeps there |
//                                                             free block: | span, prev_units, next, prev |
//
// Invariant: no two free blocks are neighbours; every free block is in the list of its length; prev_units is right behind every
// block, the sentinel included.
#include "base/region.h"

#include <assert.h>
#include <string.h>

struct free_block {
    struct moon_region_block block;
    uint32_t next, prev; // in its list
};

enum {
    ROW_BITS = 3, // 8 columns
    SPARE_UNITS =
        4 // what a block has over is cut off from this on; less would be of no use to anyone
};

static_assert(1 << ROW_BITS == MOON_REGION_COLUMN_COUNT, "columns");
static_assert(sizeof(struct free_block) == MOON_REGION_UNIT_LEN, "the shortest block");

static struct free_block *get(const struct moon_region *region, uint32_t at)
{
    return moon_region_block(region, at);
}

static bool is_taken(const struct free_block *block)
{
    return block->block.span & 1;
}

static uint32_t units_of(const struct free_block *block)
{
    return block->block.span >> 1;
}

static void class_of(uint32_t units, uint32_t *row, uint32_t *column)
{
    if (units < MOON_REGION_COLUMN_COUNT) {
        *row = 0;
        *column = units;
        return;
    }
    uint32_t log2 = 31 - (uint32_t)__builtin_clz(units);
    *row = log2 - ROW_BITS + 1;
    *column = (units >> (log2 - ROW_BITS)) & (MOON_REGION_COLUMN_COUNT - 1);
}

static void list_add(struct moon_region *region, uint32_t at, uint32_t units)
{
    uint32_t row, column;
    class_of(units, &row, &column);
    uint32_t *head = &region->heads[row][column];
    struct free_block *block = get(region, at);
    block->block.span = units << 1;
    block->next = *head;
    block->prev = 0;
    if (*head)
        get(region, *head)->prev = at;
    *head = at;
    region->rows |= 1u << row;
    region->columns[row] |= (uint8_t)(1u << column);
    region->free_units += units;
}

static void list_del(struct moon_region *region, uint32_t at)
{
    struct free_block *block = get(region, at);
    uint32_t row, column, units = units_of(block);
    class_of(units, &row, &column);
    if (block->next)
        get(region, block->next)->prev = block->prev;
    if (block->prev)
        get(region, block->prev)->next = block->next;
    else
        region->heads[row][column] = block->next;
    if (!region->heads[row][column]) {
        region->columns[row] &= (uint8_t) ~(1u << column);
        if (!region->columns[row])
            region->rows &= ~(1u << row);
    }
    region->free_units -= units;
}

void moon_region_init(struct moon_region *region, void *memory, size_t len)
{
    assert(len >= 64 && len <= MOON_REGION_MAX_LEN);
    memset(region, 0, sizeof *region);
    region->base = memory;
    region->end = (uint32_t)(len / MOON_REGION_UNIT_LEN) - 1;
    uint32_t units = moon_region_max_units(region);
    get(region, 1)->block.prev_units = 0;
    list_add(region, 1, units);
    get(region, region->end)->block = (struct moon_region_block){1, units};
}

uint32_t moon_region_max_units(const struct moon_region *region)
{
    return region->end - 1;
}

uint32_t moon_region_units(const struct moon_region *region, uint32_t at)
{
    return units_of(get(region, at));
}

// The first list whose blocks are all long enough.
static uint32_t find_longer(const struct moon_region *region, uint32_t units)
{
    uint32_t row, column;
    if (units >= MOON_REGION_COLUMN_COUNT)
        units += (1u << (31 - (uint32_t)__builtin_clz(units) - ROW_BITS)) - 1;
    class_of(units, &row, &column);
    if (row >= MOON_REGION_ROW_COUNT)
        return 0;
    uint32_t columns = region->columns[row] & (0xffu << column);
    if (!columns) {
        uint32_t rows = region->rows & (~0u << row << 1);
        if (!rows)
            return 0;
        row = (uint32_t)__builtin_ctz(rows);
        columns = region->columns[row];
    }
    return region->heads[row][__builtin_ctz(columns)];
}

// The list where some are long enough: a few of them.
static uint32_t find_similar(const struct moon_region *region, uint32_t units)
{
    uint32_t row, column;
    class_of(units, &row, &column);
    uint32_t at = region->heads[row][column];
    for (int i = 0; i < 8 && at; i++) {
        struct free_block *block = get(region, at);
        if (units_of(block) >= units)
            return at;
        at = block->next;
    }
    return 0;
}

// Marks a block that is in no list as taken and gives back what it has over.
static void cut(struct moon_region *region, uint32_t at, uint32_t has_units, uint32_t units)
{
    uint32_t over_units = has_units - units;
    if (over_units < SPARE_UNITS) {
        units = has_units;
        over_units = 0;
    }
    get(region, at)->block.span = units << 1 | 1;
    if (over_units) {
        get(region, at + units)->block.prev_units = units;
        list_add(region, at + units, over_units);
    }
    get(region, at + has_units)->block.prev_units = over_units ? over_units : units;
}

uint32_t moon_region_take(struct moon_region *region, uint32_t units)
{
    uint32_t at = find_longer(region, units);
    if (!at)
        at = find_similar(region, units);
    return at ? moon_region_take_at(region, at, units) : 0;
}

uint32_t moon_region_take_at(struct moon_region *region, uint32_t at, uint32_t units)
{
    struct free_block *block = get(region, at);
    assert(!is_taken(block) && units_of(block) >= units);
    list_del(region, at);
    cut(region, at, units_of(block), units);
    return at;
}

uint32_t moon_region_give(struct moon_region *region, uint32_t at)
{
    struct free_block *block = get(region, at);
    assert(is_taken(block));
    uint32_t units = units_of(block), next = at + units;
    if (!is_taken(get(region, next))) {
        units += units_of(get(region, next));
        list_del(region, next);
    }
    uint32_t prev_units = block->block.prev_units;
    if (prev_units && !is_taken(get(region, at - prev_units))) {
        at -= prev_units;
        units += prev_units;
        list_del(region, at);
    }
    list_add(region, at, units);
    get(region, at + units)->block.prev_units = units;
    return at;
}

bool moon_region_resize(struct moon_region *region, uint32_t at, uint32_t units)
{
    uint32_t has_units = units_of(get(region, at)), next = at + has_units;
    bool next_is_free = !is_taken(get(region, next));
    if (units <= has_units && has_units - units < SPARE_UNITS)
        return true;
    if (next_is_free)
        has_units += units_of(get(region, next));
    if (units > has_units)
        return false;
    if (next_is_free)
        list_del(region, next);
    cut(region, at, has_units, units);
    return true;
}

uint32_t moon_region_neighbour(const struct moon_region *region, uint32_t at)
{
    uint32_t next = at + moon_region_units(region, at);
    uint32_t prev_units = get(region, at)->block.prev_units;
    if (next != region->end)
        return next;
    return prev_units ? at - prev_units : 0;
}

uint32_t moon_region_units_if_given(const struct moon_region *region, uint32_t at)
{
    const struct free_block *block = get(region, at);
    uint32_t units = units_of(block), prev_units = block->block.prev_units;
    if (!is_taken(get(region, at + units)))
        units += units_of(get(region, at + units));
    if (prev_units && !is_taken(get(region, at - prev_units)))
        units += prev_units;
    return units;
}
