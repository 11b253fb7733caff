// Mailboxes of the real world: a locked list each, and one wake-up handle a loop.
#include "io/real_priv.h"

#include <stdlib.h>

struct real_mailbox {
    struct moon_mailbox base; // first
    struct moon_list node;    // in loop->mailboxes
    struct real_loop *loop;
    pthread_mutex_t lock;
    struct moon_list messages; // under the lock
};

static void mailbox_free(struct moon_mailbox *base)
{
    struct real_mailbox *mailbox = (struct real_mailbox *)base;
    moon_list_del(&mailbox->node);
    pthread_mutex_destroy(&mailbox->lock);
    free(mailbox);
}

static void mailbox_post(struct moon_mailbox *base, struct moon_message *message)
{
    struct real_mailbox *mailbox = (struct real_mailbox *)base;
    pthread_mutex_lock(&mailbox->lock);
    moon_list_add_before(&mailbox->messages, &message->node);
    uv_async_send(&mailbox->loop->wake);
    pthread_mutex_unlock(&mailbox->lock);
}

static const struct moon_mailbox_ops mailbox_ops = {.free = mailbox_free, .post = mailbox_post};

struct moon_mailbox *real_mailbox_new(struct moon_loop *loop,
                                      void (*on_message)(void *owner, struct moon_message *message),
                                      void *owner)
{
    struct real_mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (!mailbox)
        abort();
    mailbox->base = (struct moon_mailbox){&mailbox_ops, on_message, owner};
    mailbox->loop = real_loop(loop);
    pthread_mutex_init(&mailbox->lock, NULL);
    moon_list_init(&mailbox->messages);
    moon_list_add_before(&mailbox->loop->mailboxes, &mailbox->node);
    return &mailbox->base;
}

static struct moon_message *take(struct real_mailbox *mailbox)
{
    struct moon_message *message = NULL;
    pthread_mutex_lock(&mailbox->lock);
    if (!moon_list_is_empty(&mailbox->messages)) {
        message = MOON_CONTAINER(mailbox->messages.next, struct moon_message, node);
        moon_list_del(&message->node);
    }
    pthread_mutex_unlock(&mailbox->lock);
    return message;
}

void real_mailboxes_deliver(struct real_loop *loop)
{
    for (struct moon_list *at = loop->mailboxes.next; at != &loop->mailboxes; at = at->next) {
        struct real_mailbox *mailbox = MOON_CONTAINER(at, struct real_mailbox, node);
        struct moon_message *message;
        while ((message = take(mailbox)) != NULL) {
            mailbox->base.on_message(mailbox->base.owner, message);
            moon_loop_run_tasks(&loop->base);
        }
    }
}
