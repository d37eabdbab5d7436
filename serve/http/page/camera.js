// The camera: a picture from it is a file like any other.
import { get, make } from "/dom.js";

const REASONS = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "This device has no camera.",
  NotReadableError: "The camera is used by another program.",
};
let taken = 0;

// Show it until a picture is taken; `classify` gets that in a list, `say` the reason if there is no camera.
export async function openCamera(classify, say) {
  if (!navigator.mediaDevices) {
    say("Browsers give the camera only to pages from localhost or over https.", true);
    return;
  }
  get("camera").disabled = true;
  try {
    get("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await get("video").play(); // from now on there is a picture to take
  } catch (error) {
    closeCamera();
    say(`The camera is not available. ${REASONS[error.name] ?? error.message}`, true);
  }
  get("camera").disabled = false;
  get("camera").focus(); // which it lost with being disabled; the dialog gives it back at its end
  if (!get("video").srcObject) return;
  get("camera-dialog").onclose = closeCamera; // by the button, by Escape or after a picture
  get("camera-close").onclick = () => get("camera-dialog").close();
  get("shoot").onclick = async () => classify([await takePicture()]);
  get("camera-dialog").showModal();
}

function closeCamera() {
  for (const track of get("video").srcObject?.getTracks() ?? []) track.stop();
  get("video").srcObject = null;
}

async function takePicture() {
  const video = get("video");
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  get("camera-dialog").close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  taken += 1;
  return new File([blob], `camera ${taken}.png`, { type: blob.type });
}
