// Reports: problems collected, never printed here. Allocation failure aborts: reports belong to the builder, not to a worker.
#include "conf/report.h"

#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { PROBLEM_MAX_COUNT = 50, NAME_MAX_LEN = 63 };

struct moon_report {
    struct moon_problem problems[PROBLEM_MAX_COUNT];
    size_t count; // kept and not kept
    struct moon_problem warnings[PROBLEM_MAX_COUNT];
    size_t warning_count; // kept
};

struct moon_report *moon_report_new(void)
{
    struct moon_report *report = calloc(1, sizeof *report);
    if (!report)
        abort();
    return report;
}

static size_t kept(const struct moon_report *report)
{
    return report->count < PROBLEM_MAX_COUNT ? report->count : PROBLEM_MAX_COUNT;
}

static void problem_fini(struct moon_problem *problem)
{
    free((void *)problem->place.file);
    free((void *)problem->object);
    free((void *)problem->path);
    free((void *)problem->message);
    free((void *)problem->hint);
}

void moon_report_free(struct moon_report *report)
{
    for (size_t i = 0; report && i < kept(report); i++)
        problem_fini(&report->problems[i]);
    for (size_t i = 0; report && i < report->warning_count; i++)
        problem_fini(&report->warnings[i]);
    free(report);
}

static const char *copy(const char *text)
{
    char *own = text ? strdup(text) : NULL;
    if (text && !own)
        abort();
    return own;
}

static struct moon_problem copy_problem(const struct moon_problem *problem)
{
    return (struct moon_problem){{copy(problem->place.file), problem->place.line},
                                 copy(problem->object),
                                 copy(problem->path),
                                 copy(problem->message),
                                 copy(problem->hint)};
}

void moon_report_add(struct moon_report *report, const struct moon_problem *problem)
{
    if (report->count++ < PROBLEM_MAX_COUNT)
        report->problems[report->count - 1] = copy_problem(problem);
}

void moon_report_warn(struct moon_report *report, const struct moon_problem *warning)
{
    if (report->warning_count < PROBLEM_MAX_COUNT)
        report->warnings[report->warning_count++] = copy_problem(warning);
}

void moon_report_addf(struct moon_report *report, struct moon_place place, const char *object,
                      const char *path, const char *hint, const char *format, ...)
{
    char *message = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&message, format, args) < 0)
        abort();
    va_end(args);
    moon_report_add(report, &(struct moon_problem){place, object, path, message, hint});
    free(message);
}

size_t moon_report_count(const struct moon_report *report)
{
    return report->count;
}

const struct moon_problem *moon_report_at(const struct moon_report *report, size_t index)
{
    return index < kept(report) ? &report->problems[index] : NULL;
}

static void write_problem(FILE *out, const struct moon_problem *problem)
{
    if (problem->place.file && problem->place.line)
        fprintf(out, "%s:%u: ", problem->place.file, problem->place.line);
    else if (problem->place.file)
        fprintf(out, "%s: ", problem->place.file);
    if (problem->object)
        fprintf(out, "%s: ", problem->object);
    if (problem->path)
        fprintf(out, "%s: ", problem->path);
    fputs(problem->message, out);
    if (problem->hint)
        fprintf(out, "; %s", problem->hint);
    fputc('\n', out);
}

char *moon_report_text(const struct moon_report *report)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    for (size_t i = 0; i < kept(report); i++)
        write_problem(out, &report->problems[i]);
    if (report->count > kept(report))
        fprintf(out, "and %zu more\n", report->count - kept(report));
    if (fclose(out) != 0)
        abort();
    return text;
}

char *moon_report_warnings(const struct moon_report *report)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        abort();
    for (size_t i = 0; i < report->warning_count; i++)
        write_problem(out, &report->warnings[i]);
    if (fclose(out) != 0)
        abort();
    return text;
}

void moon_report_write_json(const struct moon_report *report, FILE *out)
{
    fputc('[', out);
    for (size_t i = 0; i < kept(report); i++) {
        const struct moon_problem *problem = &report->problems[i];
        fputs(i ? ",\n  {" : "\n  {", out);
        moon_json_member(out, "file", problem->place.file);
        fprintf(out, ",\"line\":%u,", problem->place.line);
        moon_json_member(out, "object", problem->object);
        fputc(',', out);
        moon_json_member(out, "path", problem->path);
        fputc(',', out);
        moon_json_member(out, "message", problem->message);
        fputc(',', out);
        moon_json_member(out, "hint", problem->hint);
        fputc('}', out);
    }
    fputc(']', out);
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned least = a < b ? a : b;
    return least < c ? least : c;
}

// Levenshtein distance, one row at a time.
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[NAME_MAX_LEN + 1];
    for (size_t k = 0; k <= b_len; k++)
        row[k] = (unsigned)k;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t k = 1; k <= b_len; k++) {
            unsigned above = row[k];
            row[k] = min3(above + 1, row[k - 1] + 1, diagonal + (a[i - 1] != b[k - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *moon_nearest_name(struct moon_slice found, const char *const *choices)
{
    const char *nearest = NULL;
    unsigned least = found.len < 3 ? 1 : (unsigned)(found.len + 2) / 3;
    if (found.len == 0 || found.len > NAME_MAX_LEN)
        return NULL;
    for (; choices && *choices; choices++) {
        size_t len = strlen(*choices);
        unsigned far =
            len <= NAME_MAX_LEN ? distance(found.ptr, found.len, *choices, len) : UINT32_MAX;
        if (far > least || (nearest && far == least))
            continue;
        least = far;
        nearest = *choices;
    }
    return nearest;
}
