// Compiling filters: problems with their full key path, copies that live with the configuration.
#include "filter/compile.h"

#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int moon_filter_problem(const struct moon_filter_compile *at, const char *key, const char *hint,
                        const char *format, ...)
{
    char path[256], *message = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0)
        abort();
    va_end(args);
    snprintf(path, sizeof path, "%s%s%s", at->path, key ? "." : "", key ? key : "");
    moon_report_addf(at->report, at->place, at->title, path, hint, "%s", message);
    free(message);
    return MOON_ECONFIG;
}

struct moon_slice moon_filter_copy(struct moon_slice text)
{
    char *copy = moon_filter_alloc(text.len + 1, 1);
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    return (struct moon_slice){copy, text.len};
}

void moon_filter_copy_free(struct moon_slice copy)
{
    free((void *)copy.ptr);
}

void *moon_filter_alloc(size_t count, size_t len)
{
    void *memory = calloc(count ? count : 1, len);
    if (!memory)
        abort();
    return memory;
}
