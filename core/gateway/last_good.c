// See last_good.h. A disk that is full or slow holds up nothing: the text is made at once, and written on a thread of its own.
#include "gateway/last_good.h"

#include "base/err.h"
#include "conf/settings.h"
#include "gateway/gateway_priv.h"
#include "io/loop.h"
#include "io/world.h"
#include "obs/log.h"
#include "script/script.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FILE_MAX_LEN = 1 << 30 };

static const char head[] = "-- The last good configuration, kept by moongate at ";
static const char with_inputs[] =
    "-- Its script has functions: what follows is the path of the script and all that it read.\n";

static const struct moon_log *log_of(const struct moon_last_good *self)
{
    return self->gateway->args.log;
}

static void script_fini(struct moon_last_good_script *script)
{
    free(script->path);
    free(script->text);
    *script = (struct moon_last_good_script){0};
}

// ---- writing

static void write_now(struct moon_last_good *self)
{
    self->err = moon_world_write_file(self->gateway->args.world, self->now.path,
                                      (struct moon_slice){self->now.text, self->now.len});
}

// On the writer's thread; in a world without threads: at once.
static void write_script(void *arg)
{
    struct moon_last_good *self = arg;
    write_now(self);
    moon_mailbox_post(self->mailbox, &self->written);
}

static void tell(const struct moon_last_good *self)
{
    if (self->err)
        moon_log_warn(log_of(self), "the last good configuration cannot be kept in %s: %s",
                      self->now.path, moon_err_text(self->err));
    else
        moon_log_info(log_of(self), "the last good configuration is kept in %s", self->now.path);
}

static void begin(struct moon_last_good *self)
{
    self->now = self->next;
    self->next = (struct moon_last_good_script){0};
    if (moon_thread_start(self->gateway->args.world, write_script, self, &self->writer))
        write_script(self);
}

static void on_message(void *owner, struct moon_message *message)
{
    (void)message;
    struct moon_last_good *self = owner;
    moon_thread_join(self->writer);
    self->writer = NULL;
    tell(self);
    script_fini(&self->now);
    if (self->next.text)
        begin(self);
}

// ---- what is written

static void write_date(FILE *out, uint64_t now_ms)
{
    char at[24];
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(out, "%s%s\n", head, at);
}

// Data is written as it was compiled. A script that has something to run is written with all that it read, to be run again.
static void write_configuration(const struct moon_model *model, FILE *out)
{
    const struct moon_object *object = NULL;
    if (moon_script_runs(model)) {
        fputs(with_inputs, out);
        moon_script_keep(model, out);
        return;
    }
    int err = moon_model_write_lua(model, out, &object);
    assert(!err); // there is no function in it
    (void)err;
}

void moon_last_good_keep(struct moon_last_good *self)
{
    const struct moon_gateway *gateway = self->gateway;
    const struct moon_settings *settings = moon_snapshot_settings(gateway->snapshot);
    const char *dir = gateway->args.state ? gateway->args.state : settings->state;
    if (!dir || !*dir)
        return;
    script_fini(&self->next);
    struct moon_last_good_script script = {.path = moon_last_good_path(dir)};
    FILE *out = open_memstream(&script.text, &script.len);
    if (!out)
        abort();
    write_date(out, moon_world_wall_ms(gateway->args.world));
    write_configuration(moon_snapshot_model(gateway->snapshot), out);
    if (fclose(out) != 0)
        abort();
    self->next = script;
    if (!self->now.text)
        begin(self);
}

// ---- life

void moon_last_good_init(struct moon_last_good *self, struct moon_gateway *gateway)
{
    self->gateway = gateway;
    self->mailbox = moon_mailbox_new(gateway->control.loop, on_message, self);
}

void moon_last_good_fini(struct moon_last_good *self)
{
    if (!self->mailbox)
        return;
    moon_thread_join(self->writer);
    if (self->now.text)
        tell(self);
    script_fini(&self->now);
    if (self->next.text) {
        self->now = self->next;
        write_now(self);
        tell(self);
        script_fini(&self->now);
    }
    moon_mailbox_free(self->mailbox);
}

// ---- reading

char *moon_last_good_path(const char *dir)
{
    char *path;
    size_t len = strlen(dir);
    if (asprintf(&path, "%s%slast-good.lua", dir, len && dir[len - 1] == '/' ? "" : "/") < 0)
        abort();
    return path;
}

int moon_last_good_load(struct moon_world *world, const char *path, struct moon_model **out,
                        struct moon_report *report)
{
    char *text = NULL;
    size_t len = 0;
    if (moon_world_read_file(world, path, FILE_MAX_LEN, &text, &len))
        return moon_script_evaluate(world, path, out, report); // which says why
    struct moon_slice rest = {text, len};
    const char *end = len ? memchr(text, '\n', len) : NULL;
    if (end)
        rest = moon_slice_skip(rest, (size_t)(end - text) + 1);
    struct moon_slice mark = {with_inputs, sizeof with_inputs - 1};
    int err = end && moon_slice_starts(rest, mark)
                  ? moon_script_restore(path, moon_slice_skip(rest, mark.len), out, report)
                  : moon_script_evaluate(world, path, out, report);
    free(text);
    return err;
}

void moon_last_good_date(struct moon_world *world, const char *path,
                         char out[MOON_LAST_GOOD_DATE_LEN])
{
    char *text = NULL;
    size_t len = 0;
    snprintf(out, MOON_LAST_GOOD_DATE_LEN, "an unknown time");
    if (moon_world_read_file(world, path, FILE_MAX_LEN, &text, &len))
        return;
    size_t at = sizeof head - 1;
    size_t date_len = strncmp(text, head, at) == 0 ? strspn(text + at, "0123456789-:TZ") : 0;
    if (date_len && date_len < MOON_LAST_GOOD_DATE_LEN)
        snprintf(out, MOON_LAST_GOOD_DATE_LEN, "%.*s", (int)date_len, text + at);
    free(text);
}
