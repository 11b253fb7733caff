// The Lua files of the product (lua/moongate), compiled in: cmake/embed.lua writes the table.
#pragma once

#include <stddef.h>

struct moon_embedded_module {
    const char *name;           // as required: "moongate", "moongate.cli.run"
    const unsigned char *bytes; // source; not NUL-terminated
    size_t len;
};

// Ends with a NULL name.
extern const struct moon_embedded_module moon_embedded_modules[];
