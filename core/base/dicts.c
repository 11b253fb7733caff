// The registry: a list, since dictionaries are few and are looked up when code is loaded.
// Invariant: an entry, once in the list, never leaves it, and nothing of it changes but told_len.
#include "base/dicts.h"

#include "base/siphash.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct entry *next;
    struct moon_dict *dict;
    size_t told_len; // the length that somebody was last told it has not
    size_t name_len;
    char name[MOON_DICTS_NAME_MAX_LEN];
};

struct moon_dicts {
    pthread_mutex_t lock;
    uint64_t seed[2];
    struct entry *entries;
    size_t count;
};

struct moon_dicts *moon_dicts_new(const uint64_t seed[2])
{
    struct moon_dicts *dicts = calloc(1, sizeof *dicts);
    if (!dicts)
        abort();
    pthread_mutex_init(&dicts->lock, NULL);
    dicts->seed[0] = seed[0];
    dicts->seed[1] = seed[1];
    return dicts;
}

void moon_dicts_free(struct moon_dicts *dicts)
{
    if (!dicts)
        return;
    for (struct entry *entry = dicts->entries, *next; entry; entry = next) {
        next = entry->next;
        moon_dict_free(entry->dict);
        free(entry);
    }
    pthread_mutex_destroy(&dicts->lock);
    free(dicts);
}

static struct entry *find(const struct moon_dicts *dicts, const char *name, size_t name_len)
{
    struct entry *entry = dicts->entries;
    while (entry && (entry->name_len != name_len || memcmp(entry->name, name, name_len) != 0))
        entry = entry->next;
    return entry;
}

static int add(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len,
               struct moon_dict **dict)
{
    if (len < MOON_DICT_MIN_LEN || len > MOON_DICT_MAX_LEN)
        return MOON_DICTS_BAD_LEN;
    if (dicts->count >= MOON_DICTS_MAX_COUNT)
        return MOON_DICTS_FULL;
    const uint64_t seed[2] = {moon_siphash(dicts->seed, name, name_len), dicts->seed[1]};
    *dict = moon_dict_try_new(len, seed);
    if (!*dict)
        return MOON_DICTS_NO_MEMORY;
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        abort();
    entry->dict = *dict;
    entry->name_len = name_len;
    memcpy(entry->name, name, name_len);
    entry->next = dicts->entries;
    dicts->entries = entry;
    dicts->count++;
    return MOON_DICTS_OK;
}

static int get_locked(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len,
                      struct moon_dict **dict)
{
    const struct entry *entry = find(dicts, name, name_len);
    if (!entry)
        return add(dicts, name, name_len, len ? len : MOON_DICT_DEFAULT_LEN, dict);
    *dict = entry->dict;
    bool is_same = len == 0 || len == moon_dict_capacity(entry->dict);
    return is_same ? MOON_DICTS_OK : MOON_DICTS_OTHER_LEN;
}

int moon_dicts_get(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len,
                   struct moon_dict **dict)
{
    *dict = NULL;
    if (name_len == 0 || name_len > MOON_DICTS_NAME_MAX_LEN)
        return MOON_DICTS_BAD_NAME;
    pthread_mutex_lock(&dicts->lock);
    int result = get_locked(dicts, name, name_len, len, dict);
    pthread_mutex_unlock(&dicts->lock);
    return result;
}

bool moon_dicts_tell(struct moon_dicts *dicts, const char *name, size_t name_len, size_t len)
{
    pthread_mutex_lock(&dicts->lock);
    struct entry *entry = find(dicts, name, name_len);
    bool is_news = entry && len != moon_dict_capacity(entry->dict) && entry->told_len != len;
    if (is_news)
        entry->told_len = len;
    pthread_mutex_unlock(&dicts->lock);
    return is_news;
}
