// What a script read, as it is kept on disk: what reads back is whole, and written and read again it is the same.
#include "fuzz.h"

#include "script/inputs.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct moon_inputs *inputs = moon_inputs_read((struct moon_slice){(const char *)bytes, len});
    if (!inputs)
        return 0;
    struct moon_slice text = {NULL, 0};
    FILE *out = open_memstream((char **)&text.ptr, &text.len);
    HOLDS(out);
    moon_inputs_write(inputs, out);
    HOLDS(fclose(out) == 0);
    struct moon_inputs *again = moon_inputs_read(text);
    HOLDS(again);
    // never equal where time or chance was asked for
    HOLDS(moon_inputs_equal(inputs, again) == moon_inputs_equal(inputs, inputs));
    for (size_t cut = 0; cut < text.len; cut += 1 + text.len / 16)
        HOLDS(!moon_inputs_read((struct moon_slice){text.ptr, cut}));
    moon_inputs_free(inputs);
    moon_inputs_free(again);
    free((void *)text.ptr);
    return 0;
}
