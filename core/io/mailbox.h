// Mailbox: how threads talk. Any thread posts, the loop's thread takes, in order of posting.
#pragma once

#include "base/list.h"

struct moon_loop;
struct moon_mailbox;

// Embedded in what is sent; the receiver owns it once it was posted.
struct moon_message {
    struct moon_list node;
};

struct moon_mailbox *moon_mailbox_new(struct moon_loop *loop,
                                      void (*on_message)(void *owner, struct moon_message *message),
                                      void *owner);
// On the loop's thread, before the loop is freed. Messages that nobody took stay unfreed: drain first. NULL is fine.
void moon_mailbox_free(struct moon_mailbox *mailbox);
// Thread safe.
void moon_mailbox_post(struct moon_mailbox *mailbox, struct moon_message *message);
