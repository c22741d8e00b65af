// The camera: one stream, one photo of what the preview shows.

const WIDTH = 960; // of a photo, at most; its shape is the preview's, three by four
let stream = null;

/** Open the camera in a video element. Throws "absent" or "refused". */
export async function open(video) {
  close();
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("absent");
  let opened;
  try {
    opened = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "user", width: { ideal: 1920 }, height: { ideal: 1440 } },
      audio: false,
    });
  } catch (error) {
    throw new Error(["NotFoundError", "OverconstrainedError"].includes(error.name) ? "absent" : "refused");
  }
  if (!video.isConnected) {
    for (const track of opened.getTracks()) track.stop();
    throw new Error("left");
  }
  stream = opened;
  video.srcObject = stream;
  await video.play();
}

/** Switch the camera off, its lamp too. */
export function close() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
}

/** Return a JPEG of the middle of the picture, as the preview shows it but not mirrored. */
export async function shoot(video) {
  const { videoWidth, videoHeight } = video;
  const scale = Math.min(videoWidth / 3, videoHeight / 4);
  const [width, height] = [3 * scale, 4 * scale];
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(Math.min(WIDTH, width));
  canvas.height = Math.round((canvas.width * 4) / 3);
  const at = [(videoWidth - width) / 2, (videoHeight - height) / 2];
  canvas.getContext("2d").drawImage(video, ...at, width, height, 0, 0, canvas.width, canvas.height);
  const photo = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  canvas.width = canvas.height = 0;
  return photo;
}
