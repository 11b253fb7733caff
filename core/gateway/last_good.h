// The last good configuration on disk: DIR/last-good.lua, written after every successful start and reload, served by a start whose
// own script is broken.
//
//   idle --keep--> writing (a thread) --written--> idle, or writing what was to be kept meanwhile
//
// All of it belongs to the control thread but the writing.
#pragma once

#include "io/mailbox.h"

#include <stdbool.h>
#include <stddef.h>

struct moon_gateway;
struct moon_model;
struct moon_report;
struct moon_thread;
struct moon_world;

enum { MOON_LAST_GOOD_DATE_LEN = 32 };

struct moon_last_good_script {
    char *path, *text; // NULL: there is none
    size_t len;
};

struct moon_last_good {
    struct moon_gateway *gateway;
    struct moon_mailbox *mailbox;
    struct moon_thread *writer;
    struct moon_message written;
    struct moon_last_good_script now, next; // being written; to be written then
    int err;                                // of the write under way
};

void moon_last_good_init(struct moon_last_good *self, struct moon_gateway *gateway);
// Ends what is being written. The loop does not run any more.
void moon_last_good_fini(struct moon_last_good *self);
// What serves now is good: it is written, where there is a directory for it (an argument, else settings.state). Failing is logged.
void moon_last_good_keep(struct moon_last_good *self);

// The script of a directory; malloc'd.
char *moon_last_good_path(const char *dir);
// Evaluates it. 0, or an error with the report filled.
int moon_last_good_load(struct moon_world *world, const char *path, struct moon_model **out,
                        struct moon_report *report);
// When the script there was written: "2026-11-24T06:00:00Z", or "an unknown time".
void moon_last_good_date(struct moon_world *world, const char *path,
                         char out[MOON_LAST_GOOD_DATE_LEN]);
