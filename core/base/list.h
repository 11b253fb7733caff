// Intrusive doubly linked ring. A head and an unlinked node point to themselves; a zeroed node counts as unlinked too.
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct moon_list {
    struct moon_list *next, *prev;
};

#define MOON_CONTAINER(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline void moon_list_init(struct moon_list *l)
{
    l->next = l->prev = l;
}

static inline bool moon_list_is_empty(const struct moon_list *l)
{
    return l->next == l || l->next == NULL;
}

static inline void moon_list_del(struct moon_list *node)
{
    if (node->next) {
        node->next->prev = node->prev;
        node->prev->next = node->next;
    }
    moon_list_init(node);
}

// Puts node before `at`: at the tail when `at` is the head.
static inline void moon_list_add_before(struct moon_list *at, struct moon_list *node)
{
    node->prev = at->prev;
    node->next = at;
    at->prev->next = node;
    at->prev = node;
}

static inline void moon_list_add_after(struct moon_list *at, struct moon_list *node)
{
    moon_list_add_before(at->next, node);
}
