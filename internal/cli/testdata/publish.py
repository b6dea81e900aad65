# Publishes readings with paho-mqtt until all are acknowledged, however often the server
# goes away, and prints the time of each that is.
import datetime, os, sys, time

import paho.mqtt.client as mqtt

port, token, version, qos, tag, count = sys.argv[1:]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311)
client.username_pw_set("press-1", open(token).read().strip())
client.reconnect_delay_set(0.1, 0.2)


def acknowledged(client, userdata, mid, reason, properties):
    if reason.is_failure:
        print(f"refused: {reason}", file=sys.stderr, flush=True)
        os._exit(1)


client.on_publish = acknowledged
client.connect("127.0.0.1", int(port))
client.loop_start()
waiting = []
for n in range(int(count)):
    text = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    message = client.publish(f"devices/press-1/{tag}", f'{{"TS":"{text}","Value":{n},"_id":"{n}"}}', qos=int(qos))
    waiting.append((message, text))
    time.sleep(0.005)
    while waiting and waiting[0][0]._published:  # is_published raises while there is no connection
        print(waiting.pop(0)[1], flush=True)
for message, text in waiting:
    while not message._published:
        time.sleep(0.02)
    print(text, flush=True)
client.disconnect()
client.loop_stop()
