// The model: objects in order of their calls, with everything they hold, in blocks that are freed together.
#include "conf/conf.h"

#include <stdio.h>
#include <stdlib.h>

enum { ALIGN = 16, BLOCK_LEN = 32768 - 64 };

struct block {
    struct block *next;
    _Alignas(16) char bytes[];
};

struct moon_model {
    struct block *blocks;
    char *at; // the free end of the block that is being filled
    size_t left_len;
    struct moon_object *objects;
    size_t count, cap;
    struct moon_code *code;
    void (*code_unref)(struct moon_code *code);
};

struct moon_model *moon_model_new(void)
{
    struct moon_model *model = calloc(1, sizeof *model);
    if (!model)
        abort();
    return model;
}

void moon_model_free(struct moon_model *model)
{
    if (!model)
        return;
    for (struct block *block = model->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    if (model->code)
        model->code_unref(model->code);
    free(model->objects);
    free(model);
}

// Zeroed. What is large has a block of its own, behind the one that is being filled.
void *moon_model_alloc(struct moon_model *model, size_t len)
{
    size_t room = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (room <= model->left_len) {
        void *memory = model->at;
        model->at += room;
        model->left_len -= room;
        return memory;
    }
    bool is_large = room > BLOCK_LEN / 4;
    struct block *block = calloc(1, sizeof *block + (is_large ? room : BLOCK_LEN));
    if (!block)
        abort();
    block->next = model->blocks;
    model->blocks = block;
    if (!is_large) {
        model->at = block->bytes + room;
        model->left_len = BLOCK_LEN - room;
    }
    return block->bytes;
}

struct moon_slice moon_model_copy(struct moon_model *model, struct moon_slice text)
{
    char *copy = moon_model_alloc(model, text.len + 1);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    return (struct moon_slice){copy, text.len};
}

void moon_model_add(struct moon_model *model, const struct moon_object *object)
{
    if (model->count == model->cap) {
        model->cap = model->cap ? model->cap * 2 : 16;
        model->objects = realloc(model->objects, model->cap * sizeof *model->objects);
        if (!model->objects)
            abort();
    }
    model->objects[model->count++] = *object;
}

size_t moon_model_count(const struct moon_model *model)
{
    return model->count;
}

const struct moon_object *moon_model_at(const struct moon_model *model, size_t index)
{
    return &model->objects[index];
}

void moon_model_set_code(struct moon_model *model, struct moon_code *code,
                         void (*unref)(struct moon_code *code))
{
    model->code = code;
    model->code_unref = unref;
}

struct moon_code *moon_model_code(const struct moon_model *model)
{
    return model->code;
}

const char *moon_object_title(struct moon_model *model, const struct moon_object *object)
{
    struct moon_slice name = moon_value_string(&object->value, "name", MOON_SLICE(""));
    if (name.len == 0)
        name = moon_value_string(&object->value, "path", MOON_SLICE(""));
    if (name.len == 0)
        return object->kind;
    size_t cap = strlen(object->kind) + name.len + 4;
    char *title = moon_model_alloc(model, cap);
    snprintf(title, cap, "%s \"%.*s\"", object->kind, MOON_SLICE_ARG(name));
    return title;
}
