// moongate-test: the product, with the filters of test_filter.c among its plugins. Otherwise main.c to the letter.
#include "filter/shipped.h"
#include "gateway/gateway.h"
#include "script/script.h"
#include "test/support/test_call.h"
#include "test/support/test_filter.h"

#include <stddef.h>

enum { FILTER_MAX_COUNT = 32 };

// Adds a NULL-terminated table behind the `count` filters that are there; the new count.
static size_t add(const struct moon_filter_type **to, size_t count,
                  const struct moon_filter_type *const *from)
{
    while (*from && count < FILTER_MAX_COUNT)
        to[count++] = *from++;
    return count;
}

int main(int argc, char **argv)
{
    const struct moon_filter_type *filters[FILTER_MAX_COUNT + 1] = {NULL};
    size_t count = add(filters, 0, moon_filter_builtins);
    count = add(filters, count, test_filters);
    add(filters, count, (const struct moon_filter_type *const[]){&test_call, NULL});
    struct moon_cli_ops ops = moon_gateway_cli_ops(filters);
    int code = moon_cli_main(argc, argv, &ops);
    test_filters_print();
    return code;
}
