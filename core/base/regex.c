// The one file that sees PCRE2. Patterns of routing are compiled anchored at both ends; all are translated to machine code; limits
// live in the match context of the scratch.
//
// Invariant: `regex` is not written after it was made. Who owns what: an expression its code, a scratch its match data,
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
    uint32_t span_count;              // of one for searching
    uint32_t name_count, name_stride; // the table of names
    PCRE2_SPTR names;
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

static bool compile(struct moon_regex *regex, struct moon_slice pattern, uint32_t options,
                    struct moon_regex_fault *fault)
{
    int err;
    PCRE2_SIZE offset, code_len = 0;
    if (pattern.len > MOON_REGEX_PATTERN_MAX_LEN)
        return refuse(fault, MOON_REGEX_PATTERN_MAX_LEN, "the pattern is too long");
    const char *text = pattern.len ? pattern.ptr : "";
    regex->code = pcre2_compile((PCRE2_SPTR)text, pattern.len, options | PCRE2_NEVER_BACKSLASH_C,
                                &err, &offset, NULL);
    if (!regex->code) {
        refuse(fault, offset, "");
        pcre2_get_error_message(err, (PCRE2_UCHAR *)fault->text, sizeof fault->text);
        return false;
    }
    // A pattern may say that it wants none: (*NO_JIT).
    regex->has_jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0 &&
                     pcre2_pattern_info(regex->code, PCRE2_INFO_JITSIZE, &code_len) == 0 &&
                     code_len > 0;
    return true;
}

static struct moon_regex *new_empty(void)
{
    struct moon_regex *regex = calloc(1, sizeof *regex);
    if (!regex)
        abort();
    return regex;
}

struct moon_regex *moon_regex_new(struct moon_slice pattern, struct moon_regex_fault *fault)
{
    const uint32_t options =
        PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF;
    struct moon_regex *regex = new_empty();
    if (compile(regex, pattern, options, fault))
        return regex;
    free(regex);
    return NULL;
}

static uint32_t search_options(unsigned options)
{
    static const struct {
        unsigned own;
        uint32_t theirs;
    } rows[] = {
        {MOON_REGEX_CASELESS, PCRE2_CASELESS}, {MOON_REGEX_MULTILINE, PCRE2_MULTILINE},
        {MOON_REGEX_DOTALL, PCRE2_DOTALL},     {MOON_REGEX_EXTENDED, PCRE2_EXTENDED},
        {MOON_REGEX_ANCHORED, PCRE2_ANCHORED},
    };
    // Texts come from clients: nothing may take it for granted that they are UTF-8.
    uint32_t theirs =
        options & MOON_REGEX_UTF ? PCRE2_UTF | PCRE2_MATCH_INVALID_UTF : PCRE2_NEVER_UTF;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (options & rows[i].own)
            theirs |= rows[i].theirs;
    return theirs;
}

struct moon_regex *moon_regex_new_search(struct moon_slice pattern, unsigned options,
                                         struct moon_regex_fault *fault)
{
    struct moon_regex *regex = new_empty();
    if (!compile(regex, pattern, search_options(options), fault))
        goto fail;
    pcre2_pattern_info(regex->code, PCRE2_INFO_CAPTURECOUNT, &regex->span_count);
    pcre2_pattern_info(regex->code, PCRE2_INFO_NAMECOUNT, &regex->name_count);
    pcre2_pattern_info(regex->code, PCRE2_INFO_NAMEENTRYSIZE, &regex->name_stride);
    pcre2_pattern_info(regex->code, PCRE2_INFO_NAMETABLE, (void *)&regex->names);
    if (++regex->span_count <= MOON_REGEX_SPANS_MAX_COUNT)
        return regex;
    refuse(fault, 0, "the pattern has too many groups");
fail:
    moon_regex_free(regex);
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
    scratch->data = pcre2_match_data_create(MOON_REGEX_SPANS_MAX_COUNT, NULL);
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

static int run(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
               struct moon_slice text, size_t from, uint32_t options)
{
    PCRE2_SPTR bytes = (PCRE2_SPTR)(text.ptr ? text.ptr : "");
    return regex->has_jit ? pcre2_jit_match(regex->code, bytes, text.len, from, options,
                                            scratch->data, scratch->limits)
                          : pcre2_match(regex->code, bytes, text.len, from, options, scratch->data,
                                        scratch->limits);
}

int moon_regex_match(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                     struct moon_slice text)
{
    int got = run(regex, scratch, text, 0, 0);
    if (got >= 0)
        return 1;
    return got == PCRE2_ERROR_NOMATCH ? 0 : MOON_ELIMIT;
}

int moon_regex_search(const struct moon_regex *regex, struct moon_regex_scratch *scratch,
                      struct moon_slice text, size_t from, bool is_after_empty,
                      struct moon_regex_span spans[MOON_REGEX_SPANS_MAX_COUNT])
{
    if (text.len > INT32_MAX)
        return MOON_ELIMIT;
    int got = run(regex, scratch, text, from, is_after_empty ? PCRE2_NOTEMPTY_ATSTART : 0);
    if (got < 0)
        return got == PCRE2_ERROR_NOMATCH ? 0 : MOON_ELIMIT;
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(scratch->data);
    for (uint32_t i = 0; i < regex->span_count; i++) {
        // Behind the last group that took part nothing is written.
        bool is_set = i < (uint32_t)got && offsets[2 * (size_t)i] != PCRE2_UNSET;
        spans[i].from = is_set ? (int32_t)offsets[2 * (size_t)i] : -1;
        spans[i].to = is_set ? (int32_t)offsets[2 * (size_t)i + 1] : -1;
    }
    return (int)regex->span_count;
}

unsigned moon_regex_name(const struct moon_regex *regex, unsigned index, struct moon_slice *name)
{
    if (index >= regex->name_count)
        return 0;
    // Two bytes of the group's number, the name, NUL.
    PCRE2_SPTR entry = regex->names + (size_t)index * regex->name_stride;
    *name = moon_slice_from((const char *)entry + 2);
    return (unsigned)entry[0] << 8 | entry[1];
}
