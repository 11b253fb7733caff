// The one file that sees PCRE2. Patterns are compiled anchored at both ends and translated to machine code; limits live in the
// match context of the scratch.
//
// Invariant: `regex` is not written after moon_regex_new. Who owns what: an expression its code, a scratch its match data,
// context and stack.
#include "base/regex.h"

#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    MATCH_LIMIT = 100000,
    DEPTH_LIMIT = 10000, // these two only where there is no JIT
    HEAP_LIMIT_KIB = 256,
    STACK_START_LEN = 32768, // of machine code
    STACK_MAX_LEN = 262144,
};

struct moon_regex {
    pcre2_code *code;
    bool has_jit;
};

struct moon_regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *limits;
    pcre2_jit_stack *stack;
};

static bool refuse(struct moon_regex_fault *fault, size_t offset, const char *text)
{
    snprintf(fault->text, sizeof fault->text, "%s", text);
    fault->offset = offset;
    return false;
}

static bool compile(struct moon_regex *regex, struct moon_slice pattern,
                    struct moon_regex_fault *fault)
{
    const uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY |
                             PCRE2_NEVER_UTF | PCRE2_NEVER_BACKSLASH_C;
    int err;
    PCRE2_SIZE offset;
    if (pattern.len > MOON_REGEX_PATTERN_MAX_LEN)
        return refuse(fault, MOON_REGEX_PATTERN_MAX_LEN, "the pattern is too long");
    const char *text = pattern.len ? pattern.ptr : "";
    regex->code = pcre2_compile((PCRE2_SPTR)text, pattern.len, options, &err, &offset, NULL);
    if (!regex->code) {
        refuse(fault, offset, "");
        pcre2_get_error_message(err, (PCRE2_UCHAR *)fault->text, sizeof fault->text);
        return false;
    }
    regex->has_jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    return true;
}

struct moon_regex *moon_regex_new(struct moon_slice pattern, struct moon_regex_fault *fault)
{
    struct moon_regex *regex = calloc(1, sizeof *regex);
    if (!regex)
        abort();
    if (compile(regex, pattern, fault))
        return regex;
    free(regex);
    return NULL;
}

void moon_regex_free(struct moon_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    free(regex);
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c < 0;
}

// What stands behind a literal may make it optional: a quantifier, or what PCRE2 skips before one.
static bool is_quantified(struct moon_slice rest)
{
    return (rest.len && strchr("?*{", rest.ptr[0]) && rest.ptr[0]) ||
           moon_slice_starts(rest, MOON_SLICE("\\E")) ||
           moon_slice_starts(rest, MOON_SLICE("\\Q")) || moon_slice_starts(rest, MOON_SLICE("(?#"));
}

// Careful rather than clever: with any '|' in the pattern it knows nothing.
size_t moon_regex_literal(struct moon_slice pattern, char *to, size_t cap)
{
    size_t at = pattern.len && pattern.ptr[0] == '^' ? 1 : 0, len = 0;
    if (pattern.len == 0 || memchr(pattern.ptr, '|', pattern.len))
        return 0;
    while (at < pattern.len && len < cap) {
        char c = pattern.ptr[at];
        size_t width = 1;
        if (c == '\\' && at + 1 < pattern.len && !is_word(pattern.ptr[at + 1])) {
            c = pattern.ptr[at + 1];
            width = 2;
        } else if (c == '\0' || strchr("\\^$.[]()?*+{}", c)) {
            break;
        }
        if (is_quantified(moon_slice_skip(pattern, at + width)))
            break;
        to[len++] = c;
        at += width;
    }
    return len;
}

struct moon_regex_scratch *moon_regex_scratch_new(void)
{
    struct moon_regex_scratch *scratch = calloc(1, sizeof *scratch);
    if (!scratch)
        abort();
    scratch->data = pcre2_match_data_create(1, NULL);
    scratch->limits = pcre2_match_context_create(NULL);
    scratch->stack = pcre2_jit_stack_create(STACK_START_LEN, STACK_MAX_LEN, NULL);
    if (!scratch->data || !scratch->limits)
        abort();
    pcre2_set_match_limit(scratch->limits, MATCH_LIMIT);
    pcre2_set_depth_limit(scratch->limits, DEPTH_LIMIT);
    pcre2_set_heap_limit(scratch->limits, HEAP_LIMIT_KIB);
    if (scratch->stack) // else 32 KiB of the thread's own
        pcre2_jit_stack_assign(scratch->limits, NULL, scratch->stack);
    return scratch;
}

void moon_regex_scratch_free(struct moon_regex_scratch *scratch)
{
    if (!scratch)
        return;
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->limits);
    pcre2_jit_stack_free(scratch->stack);
    free(scratch);
}

int moon_regex_match(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                     struct moon_slice text)
{
    PCRE2_SPTR bytes = (PCRE2_SPTR)(text.ptr ? text.ptr : "");
    int got =
        regex->has_jit
            ? pcre2_jit_match(regex->code, bytes, text.len, 0, 0, scratch->data, scratch->limits)
            : pcre2_match(regex->code, bytes, text.len, 0, 0, scratch->data, scratch->limits);
    if (got >= 0)
        return 1;
    return got == PCRE2_ERROR_NOMATCH ? 0 : MOON_ELIMIT;
}
