// The abi of regular expressions: base/regex.h. They need no VM: a script may match while it is evaluated. Who caches and frees
// them is _core/regex.lua.
#include "base/regex.h"
#include "script/abi.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SAME(abi, own) static_assert((int)(abi) == (int)(own), #abi)
SAME(MOON_ABI_REGEX_CASELESS, MOON_REGEX_CASELESS);
SAME(MOON_ABI_REGEX_MULTILINE, MOON_REGEX_MULTILINE);
SAME(MOON_ABI_REGEX_DOTALL, MOON_REGEX_DOTALL);
SAME(MOON_ABI_REGEX_EXTENDED, MOON_REGEX_EXTENDED);
SAME(MOON_ABI_REGEX_UTF, MOON_REGEX_UTF);
SAME(MOON_ABI_REGEX_ANCHORED, MOON_REGEX_ANCHORED);

void *moon_abi_regex_new(const char *pattern, size_t len, uint32_t options, char *fault,
                         size_t fault_len)
{
    struct moon_regex_fault own;
    struct moon_regex *regex =
        moon_regex_new_search((struct moon_slice){pattern, len}, options, &own);
    if (!regex)
        snprintf(fault, fault_len, "%s (at byte %zu)", own.text, own.offset);
    return regex;
}

void moon_abi_regex_free(void *regex)
{
    moon_regex_free(regex);
}

void *moon_abi_regex_scratch_new(void)
{
    return moon_regex_scratch_new();
}

void moon_abi_regex_scratch_free(void *scratch)
{
    moon_regex_scratch_free(scratch);
}

uint32_t moon_abi_regex_name(const void *regex, uint32_t index, struct moon_abi_text *name)
{
    struct moon_slice own = {NULL, 0};
    uint32_t group = moon_regex_name(regex, index, &own);
    *name = (struct moon_abi_text){own.ptr, own.len};
    return group;
}

int moon_abi_regex_search(const void *regex, void *scratch, const char *text, size_t len,
                          int32_t from, struct moon_abi_regex_span *spans)
{
    struct moon_regex_span own[MOON_REGEX_SPANS_MAX_COUNT];
    bool is_after_empty = from < 0;
    int count = moon_regex_search(regex, scratch, (struct moon_slice){text, len},
                                  (size_t)(is_after_empty ? -1 - from : from), is_after_empty, own);
    for (int i = 0; i < count; i++)
        spans[i] = (struct moon_abi_regex_span){own[i].from, own[i].to};
    return count < 0 ? MOON_ABI_INVALID : count;
}
