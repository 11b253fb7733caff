// Which configuration answered: a response field holds its number, which grows by one with each reload.
#include "load.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARKER_MAX = 4096 };

struct marker {
    uint64_t count, first_ns, last_sent_ns;
};

struct markers {
    struct marker items[MARKER_MAX];
};

struct markers *markers_new(void)
{
    struct markers *markers = calloc(1, sizeof *markers);
    if (!markers)
        fail("calloc");
    return markers;
}

// The value of a field, or NULL.
static const char *value_of(const char *field, const char *head)
{
    size_t len = strlen(field);
    for (const char *at = head; (at = strcasestr(at, field)) != NULL; at += len)
        if (at > head && at[-1] == '\n' && at[len] == ':')
            return at + len + 1;
    return NULL;
}

bool markers_add(struct markers *markers, const char *field, const char *head, uint64_t sent_ns)
{
    const char *value = value_of(field, head);
    if (!value)
        return false;
    char *end;
    unsigned long number = strtoul(value, &end, 10);
    if (end == value || (*end != '\r' && *end != 0) || number == 0 || number >= MARKER_MAX)
        return false;
    struct marker *marker = &markers->items[number];
    if (marker->count++ == 0)
        marker->first_ns = now_ns();
    if (sent_ns > marker->last_sent_ns)
        marker->last_sent_ns = sent_ns;
    return true;
}

void markers_print(const struct markers *markers)
{
    const char *before = ",\"seen\":[";
    for (size_t i = 0; i < MARKER_MAX; i++) {
        const struct marker *marker = &markers->items[i];
        if (!marker->count)
            continue;
        printf("%s[%zu,%llu,%llu,%llu]", before, i, (unsigned long long)marker->count,
               (unsigned long long)marker->first_ns, (unsigned long long)marker->last_sent_ns);
        before = ",";
    }
    printf("%s]", before[0] == ',' && before[1] ? before : "");
}
