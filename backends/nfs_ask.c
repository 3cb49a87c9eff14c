/* Names are asked for by threads that wait: a question goes to the names' reactor as a call, the thread sleeps. When it
 * has waited for the datastore's timeout it takes its question back; what was sent stays behind as a call that nobody
 * hears, and its memory goes with it. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "backends/nfs.h"
#include "base/clock.h"

#define ASK_AGAIN (100 * NS_PER_MS)

struct question {
    struct nfsds_call call;
    struct task ask, withdraw;
    struct nfs *nfs;
    void (*take)(void *out, const void *data);
    void *out;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done, withdrawn, again;
    int error, status;
    unsigned references; /* the asking thread and the reactor */
};

static void put(struct question *question)
{
    pthread_mutex_lock(&question->mutex);
    bool last = --question->references == 0;
    pthread_mutex_unlock(&question->mutex);
    if (!last)
        return;
    pthread_mutex_destroy(&question->mutex);
    pthread_cond_destroy(&question->ended);
    free(question);
}

static void end(struct question *question, int error, const void *data)
{
    pthread_mutex_lock(&question->mutex);
    question->error = error;
    question->again = question->call.sends > 1;
    if (!error)
        question->status = *(const nfsstat3 *)data;
    if (!error && question->status == NFS3_OK && question->take && !question->withdrawn)
        question->take(question->out, data);
    question->done = true;
    pthread_cond_signal(&question->ended);
    pthread_mutex_unlock(&question->mutex);
    put(question);
}

static void answered(struct nfsds_call *call, int error, void *data)
{
    end(container_of(call, struct question, call), error, data);
}

static void ask(struct task *task)
{
    struct question *question = container_of(task, struct question, ask);
    struct nfsds_connection *connection = nfsds_connection_of(question->nfs, question->nfs->names);
    question->call.answered = answered;
    if (connection)
        nfsds_connection_call(connection, &question->call);
    else
        end(question, -ENOMEM, NULL);
}

/* The asking thread waits for this: nothing of its memory is used afterwards. */
static void withdraw(void *argument)
{
    struct question *question = argument;
    pthread_mutex_lock(&question->mutex);
    question->withdrawn = true;
    bool done = question->done;
    pthread_mutex_unlock(&question->mutex);
    if (!done && nfsds_connection_abandon(&question->call))
        end(question, -ETIMEDOUT, NULL);
}

static void wait_until(struct question *question, uint64_t due)
{
    struct timespec until = {(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)};
    pthread_mutex_lock(&question->mutex);
    while (!question->done && pthread_cond_clockwait(&question->ended, &question->mutex, CLOCK_MONOTONIC, &until) == 0)
        ;
    bool done = question->done;
    pthread_mutex_unlock(&question->mutex);
    if (!done)
        reactor_call(question->nfs->names, withdraw, question);
}

/* One sending. status is the answer's, where there is one. */
static int ask_once(struct nfs *nfs, enum nfsds_procedure procedure, void *arguments,
    void (*take)(void *out, const void *data), void *out, uint64_t due, bool *again, int *status)
{
    struct question *question = calloc(1, sizeof(*question));
    if (!question)
        return -ENOMEM;
    question->nfs = nfs;
    question->call.procedure = procedure;
    question->call.arguments = arguments;
    question->take = take;
    question->out = out;
    question->references = 2;
    question->ask.run = ask;
    pthread_mutex_init(&question->mutex, NULL);
    pthread_cond_init(&question->ended, NULL);
    reactor_post(nfs->names, &question->ask);
    wait_until(question, due);
    pthread_mutex_lock(&question->mutex);
    int error = question->done ? question->error : -ETIMEDOUT;
    *again = *again || question->again;
    *status = question->status;
    pthread_mutex_unlock(&question->mutex);
    put(question);
    return error;
}

int nfsds_ask(struct nfs *nfs, enum nfsds_procedure procedure, void *arguments,
    void (*take)(void *out, const void *data), void *out, bool *again)
{
    uint64_t due = clock_now() + nfs->datastore->timeout_ns;
    bool sent_again = false;
    int error, status = 0;
    do {
        error = ask_once(nfs, procedure, arguments, take, out, due, &sent_again, &status);
        bool transient = !error && nfsds_rpc_is_transient(status) && clock_now() + ASK_AGAIN < due;
        if (!transient)
            break;
        nanosleep(&(struct timespec){0, ASK_AGAIN}, NULL);
    } while (true);
    if (again)
        *again = sent_again;
    return error ? error : nfsds_rpc_error(status);
}
