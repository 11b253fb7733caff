// See renewals.h. Few change rarely: a list.
#include "obs/renewals.h"

#include "base/json.h"

#include <stdlib.h>
#include <string.h>

struct moon_renewals {
    struct moon_renewal *items; // their texts are malloc'd
    size_t count;
};

struct moon_renewals *moon_renewals_new(void)
{
    struct moon_renewals *renewals = calloc(1, sizeof *renewals);
    if (!renewals)
        abort();
    return renewals;
}

static void renewal_fini(struct moon_renewal *renewal)
{
    free((void *)renewal->path);
    free((void *)renewal->host);
    free((void *)renewal->error);
}

void moon_renewals_free(struct moon_renewals *renewals)
{
    if (!renewals)
        return;
    for (size_t i = 0; i < renewals->count; i++)
        renewal_fini(&renewals->items[i]);
    free(renewals->items);
    free(renewals);
}

static char *copy(const char *text)
{
    char *out = strdup(text);
    if (!out)
        abort();
    return out;
}

static struct moon_renewal *find(const struct moon_renewals *renewals, const char *path)
{
    for (size_t i = 0; i < renewals->count; i++)
        if (strcmp(renewals->items[i].path, path) == 0)
            return &renewals->items[i];
    return NULL;
}

static struct moon_renewal *add(struct moon_renewals *renewals)
{
    renewals->items = realloc(renewals->items, (renewals->count + 1) * sizeof *renewals->items);
    if (!renewals->items)
        abort();
    renewals->items[renewals->count] = (struct moon_renewal){0};
    return &renewals->items[renewals->count++];
}

void moon_renewals_set(struct moon_renewals *renewals, const struct moon_renewal *renewal)
{
    struct moon_renewal *item = find(renewals, renewal->path), old;
    if (!item)
        item = add(renewals);
    old = *item;
    *item = *renewal;
    item->path = copy(renewal->path);
    item->host = copy(renewal->host);
    item->error = copy(renewal->error);
    renewal_fini(&old);
}

void moon_renewals_del(struct moon_renewals *renewals, const char *path)
{
    struct moon_renewal *item = find(renewals, path);
    if (!item)
        return;
    renewal_fini(item);
    size_t index = (size_t)(item - renewals->items);
    memmove(item, item + 1, (--renewals->count - index) * sizeof *item);
}

const struct moon_renewal *moon_renewals_at(const struct moon_renewals *renewals, size_t index)
{
    return index < renewals->count ? &renewals->items[index] : NULL;
}

static void write_time(FILE *out, const char *name, int64_t seconds)
{
    if (seconds)
        fprintf(out, ",\"%s\":%lld", name, (long long)seconds);
    else
        fprintf(out, ",\"%s\":null", name);
}

void moon_renewals_write_json(const struct moon_renewals *renewals, FILE *out)
{
    fputs("[", out);
    for (size_t i = 0; i < renewals->count; i++) {
        const struct moon_renewal *item = &renewals->items[i];
        fputs(i ? ",{" : "{", out);
        moon_json_member(out, "host", item->host);
        fputc(',', out);
        moon_json_member(out, "file", item->path);
        write_time(out, "expires", item->expires_s);
        write_time(out, "next", item->next_s);
        fprintf(out, ",\"obtained\":%llu,\"failures\":%llu,",
                (unsigned long long)item->obtained_total, (unsigned long long)item->failures_total);
        if (*item->error)
            moon_json_member(out, "error", item->error);
        else
            fputs("\"error\":null", out);
        fputc('}', out);
    }
    fputs("]", out);
}
