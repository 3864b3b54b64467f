// SPDX-License-Identifier: MIT
// A well-written listener in Node: what a user would write instead of running promptd.
//
//     node_listener.js REDIS_URL CHANNEL DATABASE_URL CONNECTIONS
//
// Checks what promptd checks of a message, uses prepared statements, works on as many messages at once as it has
// connections, and takes the prompt away again where the interview cannot be moved.
'use strict';
const { createHash } = require('node:crypto');
const Redis = require('ioredis');
const { Client } = require('pg');

const [redisUrl, channel, databaseUrl, connections] = process.argv.slice(2);
const NAMESPACE = Buffer.from('955b55d8887c58e38f230b6cb409ec02', 'hex');
const SOURCES = new Set(['rag', 'existing_data', 'new_data', 'fallback']);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const AWAITING = ['pending', 'not_started', 'enhancing', 'vector_search', 'web_scraping', 'processing', 'failed'];
const INSERT = {
    name: 'insert',
    text: 'insert into interview_enhanced_prompts (id, interview_id, prompt, source) values ($1, $2, $3, $4)'
        + ' on conflict (id) do nothing',
};
const MOVE = {
    name: 'move',
    text: 'update interviews set status = $2 where id = $1 and status = any($3) and status <> $2',
};
const DELETE = { name: 'delete', text: 'delete from interview_enhanced_prompts where id = $1' };

function promptId(interview, source, prompt) {
    const hash = createHash('sha1').update(NAMESPACE).update(`${interview}\n${source}\n${prompt}`).digest();
    hash[6] = (hash[6] & 0x0f) | 0x50;
    hash[8] = (hash[8] & 0x3f) | 0x80;
    const hex = hash.toString('hex', 0, 16);
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function parse(payload) {
    const message = JSON.parse(payload.replace(/^[= \t\r\n]+/, ''));
    const interview = message.interview_id.toLowerCase();
    const prompt = message.enhanced_prompt;
    const source = message.source ?? 'rag';
    if (!UUID.test(interview) || typeof prompt !== 'string' || prompt.length < 10 || prompt.length > 50000
        || prompt.includes('\0') || !SOURCES.has(source))
        throw new Error('the message breaks a rule');
    return [promptId(interview, source, prompt), interview, prompt, source];
}

async function store(client, [id, interview, prompt, source]) {
    const inserted = await client.query({ ...INSERT, values: [id, interview, prompt, source] });
    const moved = await client.query({ ...MOVE, values: [interview, 'ready', AWAITING] });
    if (moved.rowCount === 1 || inserted.rowCount === 0)
        return;
    await client.query({ ...DELETE, values: [id] });
    await client.query({ ...MOVE, values: [interview, 'failed', AWAITING] });
}

const waiting = []; // messages, read from `next` on
const idle = []; // clients
let next = 0;

function takeNext() {
    const payload = waiting[next];
    waiting[next++] = undefined;
    if (next === waiting.length)
        next = waiting.length = 0;
    return payload;
}

async function work(client) {
    while (next < waiting.length) {
        try {
            await store(client, parse(takeNext()));
        } catch (error) {
            console.error(`message failed: ${error.code ?? error.name}`);
        }
    }
    idle.push(client);
}

async function main() {
    for (let i = 0; i < Number(connections); i++) {
        const client = new Client({ connectionString: databaseUrl });
        await client.connect();
        idle.push(client);
    }
    const redis = new Redis(redisUrl);
    redis.on('message', (_, payload) => {
        waiting.push(payload);
        if (idle.length > 0)
            work(idle.pop());
    });
    await redis.subscribe(channel);
}

main();
